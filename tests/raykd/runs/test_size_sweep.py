"""A sweep that weighs score against latency, refuses large students, and stops when its budget is spent."""

from __future__ import annotations

from pathlib import Path

import pytest
from command import raykd as verb

import raykd

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(600)]

SPACE = """\
name: sized
method: moco
preset: digits
student: {arch: raykd/resnet9}
data: {name: digits, image_size: 16}
epochs: 3
samples: 6
lanes: 2
references: []
objective: [score, latency]
limits: {params: 1M}
budget: {cpu_hours: HOURS}
axes:
  student.options.width: [0.1, 0.25, 0.45, 2.0]
  lr: {log: [0.01, 0.1]}
"""


def test_it_stops_when_the_budget_is_spent_and_goes_on_with_more(tmp_path: Path) -> None:
    space = tmp_path / "space.yaml"
    space.write_text(SPACE.replace("HOURS", "5s"))
    first = verb("run", space, "--storage", tmp_path)
    assert first.returncode == 1, first.stdout
    printed = " ".join(first.stdout.split())
    assert "the budget is spent" in printed and "are not done; go on with: raykd resume sized" in printed
    sweep = raykd.open("sized", tmp_path)
    spent = sweep.status["lane_s"]
    assert spent >= 5 and sweep.status["trials"]["finished"] < 6

    space.write_text(SPACE.replace("HOURS", "1h"))
    again = verb("resume", "sized", "--storage", tmp_path)
    assert again.returncode == 0, again.stdout
    assert sweep.status["lane_s"] > spent, "it goes on counting from the ledger"
    trials = sweep.trials.to_pylist()
    trained = [row for row in trials if row["status"] != "refused"]
    assert len(trained) == 6 and all(row["params"] <= 1e6 for row in trained)
    assert all(row["params"] > 1e6 for row in trials if row["status"] == "refused")
    # Each student was measured once, before its first trial began.
    history = sweep.history()
    assert all(row["latency_ms"] > 0 for row in trained)
    assert set(history.latencies) == {trial.student for trial in history.trials.values()}
    for trial in history.trials.values():
        assert trial.started is not None and trial.started > history.latencies[trial.student]["time"]
    front = sweep.front()
    assert front and sweep.best().name in [trial.name for trial in front]
    assert "Score and latency" in sweep.report().read_text()
