"""A Tune callback that ends Tune's loop after a signal, or when no lane can run; Tune itself would retry."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from ray import tune

from raykd.lanes.pool import LanePool
from raykd.lanes.proxy import NotKept
from raykd.process import signals
from trainables.core.errors import SweepFailed

_EPOCH_S = 6.0  # how long a signal's end waits for the reports of the epochs in flight


class Watch(NotKept, tune.Callback):
    """Called in every round of Tune's loop, which runs within `signals.held()`."""

    def __init__(self, pool: LanePool, *checks: Callable[[], object]) -> None:
        """Each of `checks` raises why the sweep cannot go on, besides what `pool` knows."""
        self._pool = pool
        self._checks = checks
        self._until: float | None = None

    def on_step_end(self, iteration: int, trials: list[Any], **info: Any) -> None:
        """`SweepFailed` if no trial can run any more. After a signal lanes leave, then it is raised."""
        for check in self._checks:
            check()
        if self._pool.broken:
            raise SweepFailed(self._pool.broken)
        signals.keep()  # Tune replaces some handlers
        if not signals.received():
            return
        if self._until is None:
            self._until = time.monotonic() + _EPOCH_S
            self._pool.leave()
        elif time.monotonic() > self._until or not self._pool.busy:
            signals.check(held=True)


class StopWhen(NotKept, tune.Stopper):
    """Ends Tune's loop once `over()` says so, as its time limit does."""

    def __init__(self, over: Callable[[], bool]) -> None:
        self._over = over

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        """No trial is stopped by itself."""
        return False

    def stop_all(self) -> bool:
        """Whether all are stopped."""
        return self._over()
