"""What a ledger says of evaluations: which task of which suite was run on which network, and what it scored.

The fields of an `evaluated` record:

    who         student | start | teacher | baseline
    network     the name of the network, the same in every evaluation of it
    trial       the signature of the student's trial; None of other networks
    row         what the network stands for in tables: the arm of a study, the configuration of a search, ...
    seed        the seed that it was trained with; None of one that was not trained here
    suite, task the names; suite_hash: of all tasks and seeds of the suite as they were then
    key         of all that defines the task on this network's data (`SuiteTask.key`)
    asked       the task as plain JSON types
    split       the name of the test split that was read, the same for the same images
    suite_seed  the seed of the suite with which the task was run
    place       of the task among those of its suite, from 0
    metrics     as of `Outcome.metrics`; {} where it failed
    folder      where its files lie, relative to the sweep's folder
    reason      why it failed; None where it did not
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from statistics import fmean
from typing import Any, NamedTuple

import pyarrow as pa

from raykd.records.format import Record
from raykd.records.history import ENDED_WELL, TrialRecord
from trainables.spec.trial import digest

PREFIX = "evaluate"


class Key(NamedTuple):
    """What is never run twice: a network, a task on its data, a seed of the suite."""

    network: str
    task: str
    at: int


class Reading(NamedTuple):
    """How often the test split `split` was read for a network: by so many suites that differ."""

    network: str
    split: str
    times: int
    first: float  # unix seconds
    last: float


def key_of(record: Record) -> Key:
    """What the record is of."""
    return Key(record["network"], record["key"], int(record["suite_seed"]))


def column_of(record: Record) -> str:
    """The column of its scores in tables: `evaluate/SUITE/TASK`."""
    return f"{PREFIX}/{record['suite']}/{record['task']}"


def of_one_network(records: Iterable[Record]) -> list[Record]:
    """The records, with rows of the student as it came and of the teacher that hold one network each.

    Evaluations of other configurations have named different networks alike. Such a row becomes one for each
    network, whatever its seeds: `ROW (IDENTITY)`.
    """
    records = list(records)
    known: dict[tuple[str, str], set[str]] = {}
    for record in records:
        known.setdefault((record["who"], record["row"]), set()).add(_identity(record))
    return [
        {**r, "row": f"{r['row']} ({_identity(r).partition('-')[2]})"}
        if r["who"] in ("start", "teacher") and len(known[r["who"], r["row"]]) > 1
        else r
        for r in records
    ]


def _identity(record: Record) -> str:
    """The name of its network without the seed: `start-IDENTITY-SEED` is one of a student's."""
    return "-".join(record["network"].split("-")[:2])


def results(records: Iterable[Record]) -> dict[Key, Record]:
    """The record with a result of each key, the first one."""
    found: dict[Key, Record] = {}
    for record in records:
        if record["reason"] is None:
            found.setdefault(key_of(record), record)
    return found


def current(records: Iterable[Record]) -> list[Record]:
    """The results that tables show: of each task of a suite as it was asked last, the last one of each seed.

    A task whose settings were changed under its name would otherwise share a column with its former self.
    """
    good = [record for record in records if record["reason"] is None]
    asked = {(record["suite"], record["task"]): record["asked"] for record in good}
    found = {
        (r["network"], r["suite"], r["task"], r["suite_seed"]): r
        for r in good
        if r["asked"] == asked[r["suite"], r["task"]]
    }
    return list(found.values())


def failures(records: Iterable[Record]) -> dict[Key, Record]:
    """The last failure of each key that has no result."""
    records = list(records)
    good = results(records)
    return {key_of(r): r for r in records if r["reason"] is not None and key_of(r) not in good}


def asked_again(records: Iterable[Record], wanted: Iterable[tuple[Key, str, str]]) -> list[str]:
    """Names of networks whose test split another suite has read before.

    `wanted` are (key, split, suite_hash) of what is about to be run. A suite reads a split once, with all of
    its tasks; a suite that was changed reads it again.
    """
    before: dict[tuple[str, str], set[str]] = {}
    for record in records:
        before.setdefault((record["network"], record["split"]), set()).add(record["suite_hash"])
    found = {
        key.network: None
        for key, split, suite in wanted
        if before.get((key.network, split), {suite}) - {suite}
    }
    return list(found)


def readings(records: Iterable[Record]) -> list[Reading]:
    """How often each network's test splits were read. A failed task counts: nobody knows what it has seen."""
    times: dict[tuple[str, str], dict[str, list[float]]] = {}
    for record in records:
        by_suite = times.setdefault((record["network"], record["split"]), {})
        by_suite.setdefault(record["suite_hash"], []).append(float(record["time"]))
    found = []
    for (network, split), by_suite in times.items():
        every = [time for of_suite in by_suite.values() for time in of_suite]
        found.append(Reading(network, split, len(by_suite), min(every), max(every)))
    return found


def trial_scores(records: Iterable[Record]) -> dict[str, dict[str, float]]:
    """Column -> trial -> its score, the mean over the suite's seeds."""
    found: dict[str, dict[str, list[float]]] = {}
    for record in current(records):
        score = record["metrics"].get("score", math.nan)
        if record["who"] == "student" and record["trial"] and math.isfinite(score):
            found.setdefault(column_of(record), {}).setdefault(record["trial"], []).append(score)
    return {c: {trial: fmean(scores) for trial, scores in of.items()} for c, of in found.items()}


def with_all_seeds(trials: Iterable[TrialRecord]) -> dict[str, list[TrialRecord]]:
    """Configuration -> its trials that have left a student with a score, in the order of their seeds.

    Only the configurations with the most such trials: these can be compared, and are drawn by chance. One
    whose seeds have not all ended, or of which one has failed, is not among them.
    """
    found: dict[str, list[TrialRecord]] = {}
    for trial in trials:
        if trial.status in ENDED_WELL and trial.best is not None:
            found.setdefault(trial.arm, []).append(trial)
    most = max(map(len, found.values()), default=0)
    return {
        arm: sorted(of, key=lambda trial: trial.replicate) for arm, of in found.items() if len(of) == most
    }


def in_drawing_order(names: Iterable[str]) -> list[str]:
    """The names of configurations in an order by chance, always the same: the first n are a drawn sample."""
    return sorted(set(names), key=lambda name: (digest({"drawn": name}), name))


def trial_columns(records: Iterable[Record], trials: Sequence[str]) -> dict[str, pa.Array]:
    """The columns of `trial_scores` for a table with these trials; null where a trial was not evaluated."""
    return {
        column: pa.array([of.get(trial) for trial in trials], pa.float64())
        for column, of in trial_scores(records).items()
    }


def evaluations_table(records: Sequence[Record]) -> pa.Table:
    """One row a network, task and seed of its suite; `reads` is how often its test split has been read.

    Other metrics are in `chosen/NAME` and `further/NAME`; `reason` says why a task failed.
    """
    reads = {(reading.network, reading.split): reading.times for reading in readings(records)}
    rows = [*(r for r in records if r["reason"] is None), *failures(records).values()]
    texts = ("suite", "task", "row", "who", "network", "trial", "split", "key", "folder", "reason")
    columns: dict[str, pa.Array] = {
        name: pa.array([row[name] for row in rows], pa.string()) for name in texts
    }
    columns["kind"] = pa.array([str(row["asked"].get("task", "")) for row in rows], pa.string())
    for name in ("seed", "suite_seed"):
        columns[name] = pa.array([row[name] for row in rows], pa.int64())
    columns["time"] = pa.array([float(row["time"]) for row in rows], pa.float64())
    columns["reads"] = pa.array([reads[row["network"], row["split"]] for row in rows], pa.int64())
    metrics: dict[str, None] = {"score": None}
    for row in rows:
        metrics |= dict.fromkeys(row["metrics"])
    for name in metrics:
        columns[name] = pa.array([_number(row["metrics"].get(name)) for row in rows], pa.float64())
    return pa.table(columns)


def suite_hash(tasks: Any, seeds: Any) -> str:
    """8 hex digits of a suite's tasks and seeds, as plain JSON types."""
    return digest({"tasks": tasks, "seeds": seeds})


def _number(value: Any) -> float | None:
    return None if value is None else float(value)
