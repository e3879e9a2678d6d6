"""Parts of a live sweep die; the sweep ends as if they had not."""

from __future__ import annotations

import time
from pathlib import Path

import psutil
import pytest
from command import SMALL, start

from raykd.history import History
from raykd.ledger import LEDGER, Ledger

pytestmark = pytest.mark.ray


def test_killed_tune_actors_cost_nothing(tmp_path: Path) -> None:
    spec = tmp_path / "small.yaml"
    spec.write_text(
        SMALL.replace("epochs: 4", "epochs: 12").replace("scheduler: {name: asha", "scheduler: {name: none")
    )
    out = tmp_path / "out.txt"
    driver = start("run", spec, "--storage", tmp_path, output=out)
    killed = 0
    deadline = time.monotonic() + 200
    while driver.poll() is None:
        assert time.monotonic() < deadline, out.read_text()
        if killed < 3 and _reports(tmp_path / "small") >= 3 + 6 * killed:
            killed += _kill_proxies(driver.pid)
        time.sleep(0.05)
    history = History.of(Ledger.read(tmp_path / "small"))
    assert killed >= 3
    assert driver.returncode == 0, out.read_text()
    assert history.counts() == {"finished": 4, "stopped": 0, "failed": 0, "running": 0, "waiting": 0}
    for trial in history.trials.values():
        assert list(trial.reports) == list(range(1, 13)), "no epoch lost, none twice"
        assert trial.attempts == 1, "the same worker went on, at the same epoch"


def _reports(folder: Path) -> int:
    if not (folder / LEDGER).exists():
        return 0
    return sum(record["kind"] == "report" for record in Ledger.read(folder))


def _kill_proxies(driver: int) -> int:
    """SIGKILL every Tune actor below this driver."""
    found = [p for p in psutil.Process(driver).children(recursive=True) if _is_proxy(p)]
    for process in found:
        process.kill()
    return len(found)


def _is_proxy(process: psutil.Process) -> bool:
    try:
        return "TrialProxy" in " ".join(process.cmdline())
    except psutil.Error:
        return False
