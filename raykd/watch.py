"""Looks on while Tune runs, and says why when nothing happens."""

from __future__ import annotations

import time
from typing import Any

from ray import tune

from raykd.console import Console
from raykd.history import History
from raykd.lanes import LanePool
from raykd.proxy import NotKept

_QUIET_S = 20.0  # this long without a running trial is worth a word


class Watch(NotKept, tune.Callback):
    """A Tune callback; a progress reporter that is passed to Tune is ignored."""

    def __init__(self, console: Console, history: History, pool: LanePool) -> None:
        self._console = console
        self._history = history
        self._pool = pool
        self._since = time.monotonic()

    def on_step_end(self, iteration: int, trials: list[Any], **info: Any) -> None:
        now = time.monotonic()
        if self._pool.warm and self._history.counts()["running"]:
            self._since = now
        elif now - self._since > _QUIET_S:
            self._since = now
            self._console.warn(f"nothing is running: {self._reason()}")

    def _reason(self) -> str:
        pool = self._pool
        if pool.target() == 0:
            workers = pool.workers
            return (
                f"the live nodes have no room for {workers.count} worker(s) of {workers.cpus:g} CPUs and "
                f"{workers.gpus:g} GPUs"
            )
        if pool.warm == 0:
            return f"{pool.target()} lane(s) are starting; a cold one takes about 20 s"
        busy = [lane["task"] for lane in pool.state.values() if lane["task"]]
        if busy:
            return "the lanes are busy with " + ", ".join(busy)
        return "the sampler is choosing the next settings"
