"""A host that runs out of memory: Ray's monitor ends the trial's worker, and the trial says why it failed."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import psutil
import pytest
from pools import pool_of, quick_importable, run, task, until

from raykd.lanes.cluster import LOCAL, connected
from raykd.spec.sections import WorkersSpec
from trainables.core.errors import SweepFailed


@pytest.mark.slow
def test_a_worker_ended_for_its_memory_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    memory = psutil.virtual_memory()
    room = memory.available // 4
    # Ray holds the host for full when the trial has half of what it asks for.
    full = (memory.total - memory.available + room) / memory.total
    monkeypatch.setenv("RAY_memory_usage_threshold", str(full))
    monkeypatch.setenv("RAY_memory_monitor_refresh_ms", "100")
    with quick_importable(), connected(LOCAL), pool_of(tmp_path, WorkersSpec(), limit=1) as pool:
        until(lambda: pool.warm == 1, 120)
        greedy = dataclasses.replace(
            task(tmp_path, "greedy", "ask_for", what="slowly", mib=2 * room // 2**20), attempts=1
        )
        with pytest.raises(SweepFailed, match=r"1 try.*out of memory: Ray killed the worker"):
            run(pool, greedy)
        assert run(pool, task(tmp_path, "after"))[-1].epoch == 5
