"""Ends Tune's loop when the lanes it depends on cannot go on: its own retries would not notice."""

from __future__ import annotations

from typing import Any

from ray import tune

from raykd.lanes.pool import LanePool
from raykd.lanes.proxy import NotKept
from trainables.errors import SweepFailed


class Watch(NotKept, tune.Callback):
    """A Tune callback, called in every round of Tune's loop."""

    def __init__(self, pool: LanePool) -> None:
        self._pool = pool

    def on_step_end(self, iteration: int, trials: list[Any], **info: Any) -> None:
        if self._pool.broken:
            raise SweepFailed(self._pool.broken)
