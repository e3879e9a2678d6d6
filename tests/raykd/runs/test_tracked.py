"""Trackers that are added to a sweep that is done: `raykd resume` writes all of it, and starts nothing."""

from __future__ import annotations

from pathlib import Path

import pytest
from bad_input import SWEEP
from command import raykd
from histories import put
from simulated import drive
from tracker_stores import wandb_runs

from raykd.records.history import ENDED
from raykd.records.ledger import Ledger
from raykd.spec.search import load_sweep


def test_a_tracker_that_comes_later_is_given_the_whole_sweep(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("wandb", reason="needs `pip install raykd[wandb]`")
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("WANDB_API_KEY", "WANDB_MODE", "WANDB_PROJECT"):
        monkeypatch.delenv(name, raising=False)
    file, storage = tmp_path / "s.yaml", tmp_path / "sweeps"
    file.write_text(SWEEP)
    spec = load_sweep(file)
    history = drive(storage / spec.name, spec)
    records = Ledger.read(storage / spec.name)
    source = {"path": str(file), "overrides": [], "folder": str(tmp_path)}
    put(storage / spec.name, [{**r, "source": source} if r["kind"] == "sweep" else r for r in records])

    done = raykd("resume", spec.name, "--storage", storage, here=True)
    assert done.returncode == 0 and not (storage / spec.name / "tracking").exists()
    file.write_text(f"{SWEEP}\ntrack: {{wandb: {{project: later}}}}\n")
    done = raykd("resume", spec.name, "--storage", storage, here=True)
    assert done.returncode == 0, done.stderr
    runs = wandb_runs(storage / spec.name / "tracking" / "wandb")
    assert {run["name"] for run in runs.values()} == set(history.trials)
    assert all(history.trials[run["name"]].status in ENDED for run in runs.values())
    assert {run["project"] for run in runs.values()} == {"later"}
    before = {path: path.stat().st_mtime_ns for path in storage.rglob("*.wandb")}
    assert raykd("resume", spec.name, "--storage", storage, here=True).returncode == 0
    assert {path: path.stat().st_mtime_ns for path in storage.rglob("*.wandb")} == before
