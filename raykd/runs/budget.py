"""Counts what a sweep spends of its budget, and says when it is spent.

A lane counts from when its workers have registered until it ends, whether it trains, measures a reference,
tries a trial again or waits. So the count is what the lanes hold, and what somebody pays for. It goes into
the ledger every minute and at the end, and the next driver goes on from there.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from raykd.records.recorder import Recorder
from raykd.runs.latencies import check_latency
from raykd.spec.budget_section import NAMES, BudgetSpec
from raykd.spec.sections import WorkersSpec
from raykd.spec.sweep import SweepSpec
from trainables.core.errors import SweepFailed, UserError

if TYPE_CHECKING:
    from raykd.lanes.pool import LanePool

log = logging.getLogger("raykd.runs.budget")
_EVERY_S = 0.5
_RECORD_S = 60.0


class Meter:
    """Counts the seconds of lanes while it is open. Without a budget it counts nothing."""

    def __init__(self, spec: SweepSpec, workers: WorkersSpec, record: Recorder, pool: LanePool) -> None:
        """`workers` have a number of GPUs (`WorkersSpec.on`)."""
        self._budget = spec.spends
        self._most_s = seconds_left(self._budget, workers, 0.0)
        self._record = record
        self._pool = pool
        self._lane_s = record.history.lane_s
        self._ends = threading.Event()
        self._thread: threading.Thread | None = None

    @property
    def spent(self) -> bool:
        """Whether the budget is spent."""
        return self._lane_s >= self._most_s

    def __enter__(self) -> Meter:
        """Begin to count."""
        if self._budget is not None:
            self._thread = threading.Thread(target=self._count, name="budget", daemon=True)
            self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Write down what was spent."""
        self._ends.set()
        if self._thread is not None:
            self._thread.join()

    def _count(self) -> None:
        last = recorded = time.monotonic()
        while not self._ends.is_set():
            self._ends.wait(_EVERY_S)
            now = time.monotonic()
            self._lane_s += len(self._pool.state) * (now - last)
            last = now
            if (now - recorded >= _RECORD_S or self._ends.is_set()) and not self._note():
                return
            recorded = now if now - recorded >= _RECORD_S else recorded

    def _note(self) -> bool:
        """Record what was spent. False where nothing can be recorded any more, and the sweep ends."""
        try:
            self._record.soon("spent", lane_s=self._lane_s)
        except (SweepFailed, UserError):
            log.warning("what was spent could not be written down", exc_info=True)
            return False
        self._record.after(lambda: None)  # it reaches the disk soon
        return True


def seconds_left(budget: BudgetSpec | None, workers: WorkersSpec, lane_s: float) -> float:
    """Seconds of lanes that are left after `lane_s` of them; infinite without a budget."""
    return float("inf") if budget is None else budget.lane_seconds(workers) - lane_s


def spent_in_words(budget: BudgetSpec, workers: WorkersSpec, lane_s: float) -> str:
    """`12.3 of 40 GPU-hours`."""
    per_lane = {"gpu_hours": workers.count * (workers.gpus or 0.0), "cpu_hours": workers.count * workers.cpus}
    return ", ".join(
        f"{lane_s * per_lane[name] / 3600:.3g} of {hours:g} {NAMES[name]}"
        for name, hours in budget.set.items()
    )


def check_measures(spec: SweepSpec, workers: WorkersSpec, nodes: Sequence[Mapping[str, Any]]) -> None:
    """Raise `UserError` for a latency or a budget that these nodes (`ray.nodes()`) can never measure."""
    check_latency(spec, workers, nodes)
    check_budget(spec, workers, nodes)


def check_budget(spec: SweepSpec, workers: WorkersSpec, nodes: Iterable[Mapping[str, Any]]) -> None:
    """Raise `UserError` for a budget of GPUs where workers have none on these nodes (as of `ray.nodes()`)."""
    budget = spec.spends
    if budget is not None and budget.gpu_hours is not None and not workers.on(nodes).gpus:
        raise UserError(
            "budget.gpu_hours",
            "workers have no GPU, so no such hour is spent",
            value=budget.gpu_hours,
            expected="cpu_hours, or `workers.gpus`",
        )
