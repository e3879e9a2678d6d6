"""A history as Arrow tables, and as Parquet files beside the ledger, for pandas and other programs.

`trials.parquet` has one row a trial, `curves.parquet` one row an epoch. Both are views: whoever deletes them
gets them again from the ledger.
"""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from raykd.records.evaluations import evaluations_table, trial_columns
from raykd.records.history import History, TrialRecord
from raykd.records.ledger import Record
from raykd.spec.arms import ARM, ArmSpec
from trainables.core.files import replacing

TRIALS = "trials.parquet"
CURVES = "curves.parquet"
EVALUATIONS = "evaluations.parquet"
_EVERY_S = 5.0
_SHARE = 0.02

log = logging.getLogger("raykd.records.tables")


def trials_table(history: History) -> pa.Table:
    """One row a trial in the order of suggestion; `config/NAME` holds a field, null where a trial has none.

    Configurations that were refused have rows behind those of trials, with the status `refused`, the reason,
    and their values on the axes.

    Of a study `arm_name` is the arm's label, `trained_parameters` how many numbers an optimizer moves,
    `step_flops` the floating-point operations of a step and `flops` those of the epochs finished. `score` is
    the best finite score and `best_epoch` when it was reached, `last` the score of the last probed epoch (NaN
    possible), `epoch` the epochs finished, `params` and `macs` the size of the student (null in ledgers of
    earlier versions), `latency_ms` with its quartiles the time of its forward pass, where a sweep measures
    that, `wall_s` seconds of training without the pauses between drivers. `audited`, in a sweep with an audit
    of the proxy, is the epoch at which a trial was to stop that ran on. `evaluate/SUITE/TASK` is the score of
    a task on the test split, null where it was not run. A field whose values differ in type is text; lists
    and mappings are JSON.
    """
    trials = [*history.trials.values(), *map(_as_trial, history.refused)]
    columns: dict[str, pa.Array] = {
        "trial": pa.array([t.trial for t in trials], pa.string()),
        "number": pa.array([t.number for t in trials], pa.int64()),
        "method": pa.array([t.method for t in trials], pa.string()),
        "arm": pa.array([t.arm for t in trials], pa.string()),
        **_labels(trials),
        "replicate": pa.array([t.replicate for t in trials], pa.int64()),
        "origin": pa.array([t.origin for t in trials], pa.string()),
        "status": pa.array([t.status for t in trials], pa.string()),
        "attempts": pa.array([t.attempts for t in trials], pa.int64()),
        "epoch": pa.array([t.epoch for t in trials], pa.int64()),
        "score": pa.array([t.best and t.best[0] for t in trials], pa.float64()),
        "best_epoch": pa.array([t.best and t.best[1] for t in trials], pa.int64()),
        "last": pa.array([t.last for t in trials], pa.float64()),
        **_sizes(history, trials),
        "wall_s": pa.array([t.wall_s for t in trials], pa.float64()),
        **_audits(trials),
        **_costs(history, trials),
        "reason": pa.array([t.reason for t in trials], pa.string()),
        **trial_columns(history.evaluated, [t.trial for t in trials]),
    }
    for name in dict.fromkeys(name for t in trials for name in t.config):
        columns[f"config/{name}"] = _column([t.config.get(name) for t in trials])
    return pa.table(columns)


def curves_table(history: History) -> pa.Table:
    """One row a trial and epoch, one column a metric; null where it was not measured."""
    rows = [(t.trial, e, t.reports[e]) for t in history.trials.values() for e in sorted(t.reports)]
    columns = {
        "trial": pa.array([trial for trial, _, _ in rows], pa.string()),
        "epoch": pa.array([epoch for _, epoch, _ in rows], pa.int64()),
    }
    for name in dict.fromkeys(name for _, _, metrics in rows for name in metrics):
        columns[name] = pa.array([metrics.get(name) for _, _, metrics in rows], pa.float64())
    return pa.table(columns)


def write_tables(history: History, folder: Path) -> None:
    """Write the tables into the sweep's folder. A reader sees the old file or the new one, whole."""
    tables = {TRIALS: trials_table(history), CURVES: curves_table(history)}
    if history.evaluated:
        tables[EVALUATIONS] = evaluations_table(history.evaluated)
    for name, table in tables.items():
        with replacing(folder / name) as temporary:
            pq.write_table(table, temporary)


class LiveTables:
    """A listener of the recorder: writes the tables again and again, in a thread of its own.

    A large sweep's tables take seconds to write. So they are written from a copy of the history, and less
    often the longer that takes: at most `_SHARE` of the time is spent on them.
    """

    def __init__(self, folder: Path) -> None:
        """`folder` is the sweep's."""
        self._folder = folder
        self._next = 0.0  # seconds of the monotonic clock
        self._thread: threading.Thread | None = None

    def __call__(self, record: Record, history: History) -> None:
        """A record was written. Begins to write the tables if it is time and they are not being written."""
        if time.monotonic() >= self._next and (self._thread is None or not self._thread.is_alive()):
            copy = history.snapshot()
            self._thread = threading.Thread(target=self._write, args=(copy,), name="tables", daemon=True)
            self._thread.start()

    def close(self) -> None:
        """Wait until they are not being written any more."""
        if self._thread is not None:
            self._thread.join()

    def _write(self, history: History) -> None:
        began = time.monotonic()
        try:
            write_tables(history, self._folder)
        except Exception:
            log.exception("the tables could not be written")
        now = time.monotonic()
        self._next = now + max(_EVERY_S, (now - began) / _SHARE)


def _sizes(history: History, trials: Sequence[TrialRecord]) -> dict[str, pa.Array]:
    """The columns of the students' sizes, and of their latencies where these were measured."""
    counts = {name: pa.array([t.size.get(name) for t in trials], pa.int64()) for name in ("params", "macs")}
    known = [history.latencies.get(t.student, {}).get("metrics", {}) for t in trials]
    names = {"latency_ms": "median_ms", "latency_low_ms": "low_ms", "latency_high_ms": "high_ms"}
    times = {to: pa.array([m.get(at) for m in known], pa.float64()) for to, at in names.items()}
    return {**counts, **(times if history.latencies else {})}


def _as_trial(refused: Record) -> TrialRecord:
    """A refused configuration as a row among the trials."""
    return TrialRecord(
        trial=refused.get("name", ""),
        number=int(refused["number"]),
        arm="",
        replicate=0,
        params=refused["params"],
        config=refused["params"],
        origin="",
        attrs={},
        suggested=refused["time"],
        status="refused",
        reason=refused["reason"],
        size=dict(refused.get("size", {})),
    )


def _labels(trials: Sequence[TrialRecord]) -> dict[str, pa.Array]:
    """The column of arms' names, if the sweep is a study."""
    if not any(ARM in t.params for t in trials):
        return {}
    return {"arm_name": pa.array([t.params.get(ARM) for t in trials], pa.string())}


def _audits(trials: Sequence[TrialRecord]) -> dict[str, pa.Array]:
    """The column of epochs at which trials were to stop, if some ran on for the audit of the proxy."""
    if all(t.audited is None for t in trials):
        return {}
    return {"audited": pa.array([t.audited for t in trials], pa.int64())}


def _costs(history: History, trials: Sequence[TrialRecord]) -> dict[str, pa.Array]:
    """The columns of what trials of a study cost, as counted before it started."""
    if not any(ARM in t.params for t in trials):
        return {}
    known = {label: ArmSpec.model_validate(arm) for label, arm in history.spec["arms"].items()}
    arms = [known[t.params[ARM]] for t in trials]
    return {
        "trained_parameters": pa.array([arm.trained_parameters for arm in arms], pa.int64()),
        "step_flops": pa.array([arm.step_flops for arm in arms], pa.float64()),
        "flops": pa.array([arm.flops(t.epoch) for arm, t in zip(arms, trials, strict=True)], pa.float64()),
    }


def _column(values: Sequence[Any]) -> pa.Array:
    kinds = set(map(type, values)) - {type(None)}
    if kinds == {str} or not kinds:
        return pa.array(values, pa.string())
    if kinds == {bool}:
        return pa.array(values, pa.bool_())
    if kinds == {float}:
        return pa.array(values, pa.float64())
    if kinds == {int} and all(v is None or -(2**63) <= v < 2**63 for v in values):
        return pa.array(values, pa.int64())
    if kinds <= {int, float}:
        return pa.array([None if v is None else float(v) for v in values], pa.float64())
    return pa.array([v if v is None or isinstance(v, str) else json.dumps(v) for v in values], pa.string())
