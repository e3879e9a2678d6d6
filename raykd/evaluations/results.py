"""What the records of evaluations say together: a score with its interval for each row and task, differences.

    found = gather(history.evaluated, sweep)
    found.rows[0].cells["evaluate/quick/linear"].mean

The files with what became of each image are read where they are there. Without them an interval is over the
seeds alone.
"""

from __future__ import annotations

import io
import math
import zipfile
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from raykd.records.evaluations import column_of, current, failures, of_one_network, readings
from raykd.records.format import Record
from raykd.records.history import History
from raykd.stats.evaluation import Difference, Runs, differences, score_interval
from raykd.stats.paired import FloatArray, IntArray, Interval
from raykd.storage.base import SweepFolder
from trainables.core.errors import SweepFailed, UserError
from trainables.core.files import read_bytes

OUTCOMES = "outcomes.npz"
ALPHA = 0.05
_UNREADABLE = (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error)  # what a damaged file raises
_BY_CLASS = "mean_per_class"  # of `Outcome.metric`
_SAME = 1e-3  # points by which a score and the mean of its images may differ: it was rounded to float32
_BASES = ("baseline", "start", "teacher", "student")  # what is compared with, where nobody says it
_FIRST = {"student": 0, "baseline": 1, "start": 2, "teacher": 3}  # the order of rows


class Outcomes(NamedTuple):
    """What became of each test image, in the order of `ids` (N,), which is ascending."""

    hits: FloatArray  # 1: right, 0: wrong
    ids: IntArray
    labels: IntArray
    metric: str | None = None  # whose value the score is; None: written before it was kept


class Cell(NamedTuple):
    """The score of a row on a task, percent."""

    mean: float
    interval: Interval
    over: str  # what the interval is over, as of `score_interval`
    runs: int  # networks that were trained with seeds of their own
    tested: int  # images
    fitted: int
    reads: int  # how often the test split has been read, the most of its networks


@dataclass(frozen=True)
class Row:
    """An arm, a configuration, or what stands beside them."""

    name: str
    who: str
    cells: Mapping[str, Cell]  # column -> cell
    differences: Mapping[str, Difference] = field(default_factory=dict)  # from the base


@dataclass(frozen=True)
class Results:
    """All rows; `columns` are `evaluate/SUITE/TASK`; `base` is the row that the others are compared with."""

    columns: tuple[str, ...]
    rows: tuple[Row, ...]
    base: str | None
    alpha: float
    failed: tuple[str, ...]  # in words
    again: tuple[str, ...]  # rows and splits that were read more than once, in words


def gather(
    records: Sequence[Record],
    sweep: SweepFolder | None,
    base: str | None = None,
    alpha: float = ALPHA,
    suites: Iterable[str] = (),
) -> Results:
    """The results of the records of a sweep, of `suites` alone where some are named.

    `base` is a row's name, or whom to compare with (teacher, start, baseline); None: the first there is of
    baseline, start and teacher. All comparisons are one family: at most `alpha` of all tables with equal rows
    call one different. Without `sweep` no file of outcomes is read. Raises `UserError` for a base that is
    not there.
    """
    suites, every = set(suites), records  # a suite that is not shown has read the split all the same
    records = [record for record in records if not suites or record["suite"] in suites]
    shown = of_one_network(current(records))
    columns = _columns(shown)
    names = {record["row"]: record["who"] for record in shown}
    ordered = sorted(names, key=lambda row: _FIRST[names[row]])  # stable: students stay in their order
    tested: dict[tuple[str, str], Runs] = {}
    for column in columns:
        of_column = [record for record in shown if column_of(record) == column]
        known = {record["folder"]: outcomes_of(record, sweep) for record in of_column}
        by_class = _by_class(of_column, known)
        for row in ordered:
            if own := [record for record in of_column if record["row"] == row]:
                tested[row, column] = _tested(own, known, by_class)
    chosen = _base(names, base)
    pairs = [at for at in tested if chosen is not None and at[0] != chosen and (chosen, at[1]) in tested]
    compared = differences([(tested[at], tested[str(chosen), at[1]]) for at in pairs], alpha)
    by_place = dict(zip(pairs, compared, strict=True))
    reads = {(reading.network, reading.split): reading.times for reading in readings(every)}
    rows = [
        Row(
            row,
            names[row],
            {
                column: _cell(tested[row, column], _of(shown, row, column), reads, alpha)
                for column in columns
                if (row, column) in tested
            },
            {column: by_place[row, column] for column in columns if (row, column) in by_place},
        )
        for row in ordered
    ]
    return Results(columns, tuple(rows), chosen, alpha, _failed(records), _again(records, reads))


def _columns(records: Iterable[Record]) -> tuple[str, ...]:
    """The columns in the order of the suites' first results, and of the tasks in each suite."""
    records = list(records)
    suites = list(dict.fromkeys(record["suite"] for record in records))
    places = {column_of(r): (suites.index(r["suite"]), r["place"]) for r in records}
    return tuple(sorted(places, key=lambda column: places[column]))


def base_of(history: History) -> str | None:
    """What the rows of a sweep are compared with where nobody says it: the base arm of a study.

    None of a search, and if the base was not evaluated: then `gather` chooses.
    """
    if history.sweep is None or not history.study:
        return None
    base = str(history.spec["study"]["base"])
    return base if any(r["row"] == base and r["reason"] is None for r in history.evaluated) else None


def outcomes_of(record: Record, sweep: SweepFolder | None) -> Outcomes | None:
    """What became of each image; None where the task has no such file, or it cannot be read."""
    if sweep is None:
        return None
    path = sweep.path / record["folder"] / OUTCOMES
    try:
        if not sweep.storage.pull(path):
            return None
        with np.load(io.BytesIO(read_bytes(path))) as file:
            hits, ids, labels = (np.asarray(file[name]) for name in ("hits", "ids", "labels"))
            metric = str(file["metric"]) if "metric" in file else None
    except (*_UNREADABLE, KeyError, SweepFailed, UserError):
        return None
    if not len(hits) or not len(hits) == len(ids) == len(labels):
        return None
    order = np.argsort(ids, kind="stable")
    return Outcomes(
        hits[order].astype(np.float64), ids[order].astype(np.int64), labels[order].astype(np.int64), metric
    )


def _tested(records: Sequence[Record], known: Mapping[str, Outcomes | None], by_class: set[bool]) -> Runs:
    """What is known of a row on a task, from its records; `by_class` is that of all rows."""
    networks: dict[str, list[Record]] = {}
    for record in sorted(records, key=lambda r: (-1 if r["seed"] is None else r["seed"], r["suite_seed"])):
        networks.setdefault(record["network"], []).append(record)
    first = records[0]
    seeded = first["seed"] is not None and first["who"] != "baseline"  # of a baseline there is one network
    runs = list(networks.values()) if seeded else [[r] for r in next(iter(networks.values()))]
    scores = np.array([np.mean([r["metrics"].get("score", math.nan) for r in run]) for run in runs])
    seeds = tuple(int(run[0]["seed"]) for run in runs) if seeded else None
    every = [known[r["folder"]] for run in runs for r in run]
    outcomes = [each for each in every if each is not None]
    if len(outcomes) < len(every) or any(not np.array_equal(o.ids, outcomes[0].ids) for o in outcomes):
        return Runs(scores, seeds=seeds)
    used = [r for run in runs for r in run]
    mean = True in (_by_class(used, known) or by_class)  # over the classes
    if any(mean not in _means(r, known[r["folder"]]) for r in used):
        return Runs(scores, seeds=seeds)  # a score that is no such mean over these images
    hits = np.stack([np.mean([_hits(known[r["folder"]]) for r in run], axis=0) for run in runs])
    return Runs(scores, hits, outcomes[0].labels if mean else None, seeds)


def _hits(outcomes: Outcomes | None) -> FloatArray:
    assert outcomes is not None
    return outcomes.hits


def _by_class(records: Sequence[Record], known: Mapping[str, Outcomes | None]) -> set[bool]:
    """Which means the scores are: over the classes (True) or over the images (False).

    Scores at which both means agree, as where every image is right, do not say it.
    """
    found = [(record, outcomes) for record in records if (outcomes := known[record["folder"]]) is not None]
    told = [means for record, outcomes in found if len(means := _means(record, outcomes)) == 1]
    return set().union(*told)


def _means(record: Record, outcomes: Outcomes | None) -> set[bool]:
    """Which means the score is: over the classes (True), over the images (False), both or neither."""
    assert outcomes is not None
    score, hits = record["metrics"].get("score", math.nan), 100 * outcomes.hits
    classes, inverse = np.unique(outcomes.labels, return_inverse=True)
    of_classes = np.bincount(inverse, hits) / np.bincount(inverse, minlength=len(classes))
    means = {False: float(hits.mean()), True: float(of_classes.mean())}
    if outcomes.metric is not None:
        said = outcomes.metric == _BY_CLASS
        means = {said: means[said]}
    return {by_class for by_class, mean in means.items() if abs(mean - score) < _SAME}


def _cell(
    tested: Runs, records: Sequence[Record], reads: Mapping[tuple[str, str], int], alpha: float
) -> Cell:
    interval, over = score_interval(tested, alpha)
    metrics = records[-1]["metrics"]
    return Cell(
        mean=float(np.mean(tested.scores)),
        interval=interval,
        over=over,
        runs=len(tested.scores) if tested.seeds is not None else 1,
        tested=int(metrics.get("tested", 0)),
        fitted=int(metrics.get("fitted", 0)),
        reads=max(reads[record["network"], record["split"]] for record in records),
    )


def _of(records: Iterable[Record], row: str, column: str) -> list[Record]:
    return [record for record in records if record["row"] == row and column_of(record) == column]


def _base(names: Mapping[str, str], base: str | None) -> str | None:
    """The row that the others are compared with."""
    for wanted in (base,) if base is not None else _BASES:
        if wanted in names:
            return wanted
        if (row := next((row for row, who in names.items() if who == wanted), None)) is not None:
            return row
    if base is None or not names:
        return None
    raise UserError("--base", "has not been evaluated", value=base, choices=[*names, *_BASES[:3]])


def _failed(records: Sequence[Record]) -> tuple[str, ...]:
    found = []
    for r in failures(records).values():
        seed = "" if r["seed"] is None else f", seed {r['seed']}"
        found.append(f"{r['task']} on {r['row']}{seed}: {r['reason']}")
    return tuple(found)


def _again(records: Sequence[Record], reads: Mapping[tuple[str, str], int]) -> tuple[str, ...]:
    """Which test splits were read more than once, a sentence each; `reads` by network and split."""
    times: dict[tuple[str, int], list[str]] = {}
    for record in records:
        split = record["split"]
        if (count := reads[record["network"], split]) > 1:
            of = times.setdefault((split, count), [])
            if record["row"] not in of:
                of.append(record["row"])
    return tuple(
        f"the test split of {split} was read {count} times, by suites that differ, for {', '.join(of)}: who "
        "chooses by its scores needs another split to know how good the choice is"
        for (split, count), of in times.items()
    )
