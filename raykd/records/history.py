"""What a sweep's records add up to: its trials, their curves and their ends. It reads no files and no clock.

    history = History.of(Ledger.read(folder))
    history.add(ledger.append("report", ...))  # the driver keeps its own up to date, record by record

`tables.py` turns a history into Arrow tables.
"""

from __future__ import annotations

import copy
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from raykd.records.earlier import Earlier
from raykd.records.format import checked
from raykd.records.ledger import KINDS, Record
from trainables.core.errors import SweepFailed, UserError

if TYPE_CHECKING:
    from raykd.spec.sweep import SweepSpec

STATUSES = ("finished", "stopped", "failed", "running", "waiting")
SIZES = ("params", "macs", "latency")  # of a student: parameters, multiply-adds of an image, milliseconds
ENDED_WELL = ("finished", "stopped")
ENDED = (*ENDED_WELL, "failed")
_TRIAL = re.compile(r"[\w-]{1,64}", re.ASCII)  # a trial's name is one of a folder


@dataclass
class TrialRecord:
    """One trial as the ledger knows it. Scores are on the probe's own scale (percent), more is better."""

    trial: str  # 8 hex digits
    number: int  # running from 0
    arm: str  # the same for all replicates of a setting
    replicate: int  # the seed
    params: dict[str, Any]  # axis -> value
    config: dict[str, Any]  # flat name -> value, complete
    origin: str  # sampler | point | preset | grid | replicate
    attrs: dict[str, Any]  # Optuna's system attributes
    suggested: float  # unix seconds
    status: str = "waiting"  # running: started and not ended, whether or not its driver lives
    reports: dict[int, dict[str, float]] = field(default_factory=dict)  # epoch -> metrics
    times: dict[int, float] = field(default_factory=dict)  # epoch -> unix seconds of its report
    verdicts: dict[int, str] = field(default_factory=dict)  # epoch -> go | stop
    audited: int | None = (
        None  # the epoch after which the scheduler had stopped it, if it ran on for the audit
    )
    attempts: int = 0
    retries: int = 0  # how often it was tried again after it had failed
    lane: str | None = None  # the last one
    reason: str | None = None
    started: float | None = None  # unix seconds, the first start
    ended: float | None = None  # unix seconds
    wall_s: float = 0.0  # from each start to the last record of that attempt: pauses between drivers left out
    best: tuple[float, int] | None = None  # best finite score and its epoch, the earliest of equals
    student: str = ""  # 8 hex digits of what its student is; "" in older ledgers
    size: dict[str, float] = field(default_factory=dict)  # of the student, as far as known: see `SIZES`
    _mark: float | None = None  # time up to which wall_s counts

    @property
    def method(self) -> str:
        """The method's name; "" if the config has none."""
        return str(self.config.get("method", ""))

    @property
    def epochs(self) -> int | None:
        """Its budget, epochs."""
        return self.config.get("epochs")

    @property
    def epoch(self) -> int:
        """Epochs finished."""
        return max(self.reports, default=0)

    @property
    def last(self) -> float | None:
        """The score of the last epoch that was probed; may be NaN."""
        probed = [epoch for epoch, metrics in self.reports.items() if "score" in metrics]
        return self.reports[max(probed)]["score"] if probed else None

    def best_at(self, epoch: int) -> float | None:
        """The best finite score up to and with `epoch`."""
        scores = [m.get("score", math.nan) for e, m in self.reports.items() if e <= epoch]
        return max(filter(math.isfinite, scores), default=None)

    def snapshot(self) -> TrialRecord:
        """A copy that later records do not change."""
        return replace(self, reports=dict(self.reports), times=dict(self.times), verdicts=dict(self.verdicts))

    def _touch(self, time: float) -> None:
        if self._mark is not None and self.status == "running":
            self.wall_s += max(0.0, time - self._mark)
            self._mark = time


class History:
    """The state of a sweep after its records. `add` takes them in the order in which they were written."""

    def __init__(self) -> None:
        self.trials: dict[str, TrialRecord] = {}  # in the order of suggestion
        self.sweep: Record | None = None  # the head record
        self.earlier: Earlier | None = None  # what it has from earlier sweeps, once that is known
        self.references: dict[str, Record] = {}  # name -> the last record of that name
        self.measured: dict[str, dict[str, float]] = {}  # reference -> metrics of its best epoch
        self.latencies: dict[str, Record] = {}  # student -> how long it takes
        self.lane_s = 0.0  # seconds of lanes in all, where the sweep counts them for its budget
        self.drivers: list[Record] = []
        self.repeats: list[Record] = []
        self.repairs: list[Record] = []  # of the ledger, after damage
        self.quarantined: list[Record] = []  # GPUs that the present or last driver no longer uses
        self.arrivals: list[tuple[str, int]] = []  # (trial, epoch) of every report, in the order of arrival
        self.evaluated: list[Record] = []  # tasks of suites on networks, in the order of their ends
        self.ends: dict[str, None] = {}  # trials that have ended, in the order of their ends
        self.extensions: list[int] = []  # by how many configurations, each time
        self.exhausted = False  # the space holds no further configuration
        self._places: dict[str, int] = {}  # trial -> its place in the order of suggestion
        self._leader: str | None = None  # the trial with the best score, the earlier one of equals

    @classmethod
    def of(cls, records: Sequence[Record]) -> History:
        """Of a ledger's records. `UserError` for those of a version that this raykd does not understand."""
        history = cls()
        for record in checked(records):
            history.add(record)
        return history

    @property
    def spec(self) -> dict[str, Any]:
        """The spec as recorded at the start; `UserError` if the driver died before that."""
        if self.sweep is None:
            raise UserError(
                "ledger", "the sweep died before its first record", expected="`raykd run` once more"
            )
        spec: dict[str, Any] = self.sweep["spec"]
        return spec

    @property
    def study(self) -> bool:
        """Is it an ablation study?"""
        return bool(self.spec.get("study"))

    @property
    def samples(self) -> int:
        """How many configurations were asked for, extensions included."""
        return int(self.spec["samples"]) + self.extended

    @property
    def extended(self) -> int:
        """How many configurations were asked for beyond those at the start."""
        return sum(self.extensions)

    @property
    def total(self) -> int:
        """How many trials the sweep has: every configuration once per seed, or all there are."""
        return len(self.trials) if self.exhausted else self.samples * len(self.spec["seeds"])

    @property
    def done(self) -> bool:
        """Whether every trial has ended."""
        return sum(t.status in ENDED for t in self.trials.values()) >= self.total

    @property
    def refused(self) -> list[Record]:
        """The configurations that were not trained since their student is too large, or does not fit."""
        return [record for record in self.repeats if record.get("over")]

    def counts(self) -> dict[str, int]:
        """status -> number of trials, every status present."""
        counts = dict.fromkeys(STATUSES, 0)
        for trial in self.trials.values():
            counts[trial.status] += 1
        return counts

    def best(self) -> TrialRecord | None:
        """The trial with the best finite score at any epoch; the earlier one of equals.

        With several seeds it is of the setting whose replicates are best on average, so that one lucky seed
        does not decide.
        """
        if self.sweep is None or not (self.study or len(self.spec["seeds"]) > 1):
            return self.trials[self._leader] if self._leader is not None else None
        scored = [t for t in self.trials.values() if t.best]
        if scored:
            arms: dict[str, list[float]] = {}
            for trial in scored:
                arms.setdefault(trial.arm, []).append(trial.best[0] if trial.best else 0.0)
            most = max(map(len, arms.values()))
            # A study trains no more replicates of an arm once its question is answered.
            counted = {a: scores for a, scores in arms.items() if self.study or len(scores) == most}
            whole = {arm: sum(scores) / len(scores) for arm, scores in counted.items()}
            leader = max(whole, key=lambda arm: whole[arm])
            scored = [t for t in scored if t.arm == leader]
        return max(scored, key=lambda t: (t.best or (0.0, 0))[0], default=None)

    def find(self, name: str) -> TrialRecord:
        """The trial whose name starts with `name`; `UserError` when there is none or more than one."""
        found = [t for t in self.trials.values() if name and t.trial.startswith(name.lower())]
        if len(found) != 1:
            problem = "no such trial" if not found else f"{len(found)} trials start like this"
            raise UserError("trial", problem, value=name, choices=self.trials)
        return found[0]

    def add(self, record: Record) -> None:
        """Take one more record into account. `UserError` if it contradicts those before it."""
        kind = record["kind"]
        if kind == "suggest":
            self._suggest(record)
        elif kind in ("start", "report", "verdict", "end"):
            trial = self.trials.get(record["trial"])
            if trial is None:
                raise UserError(
                    "ledger", f"a {kind!r} record of trial {record['trial']}, which was never suggested"
                )
            if trial.status in ENDED:
                return  # what comes after a trial's end does not count
            if kind != "start":  # the time before another start is a pause
                trial._touch(record["time"])
            if kind == "report" and record["epoch"] not in trial.reports:
                self.arrivals.append((trial.trial, int(record["epoch"])))
            _STEPS[kind](trial, record)
            if kind == "end":
                self.ends[trial.trial] = None
            if kind == "report" and trial.best is not None:
                leader = self.trials[self._leader] if self._leader is not None else trial
                if self._rank(trial) > self._rank(leader) or self._leader is None:
                    self._leader = trial.trial
        elif kind == "sweep":
            self.sweep = self.sweep or record
        elif kind == "warm_start":
            self.earlier = self.earlier or Earlier.of(record)
        elif kind == "driver":
            self.drivers.append(record)
            if record["event"] == "start":
                self.quarantined.clear()
        elif kind == "extend":
            self.extensions.append(int(record["samples"]))
            self.exhausted = False  # until the space, or the study's rules, say so again
        elif kind == "reference":
            self.references[record["name"]] = record
        elif kind == "latency":
            self.latencies[record["student"]] = record
            for trial in self.trials.values():
                self._note_latency(trial)
        elif kind == "spent":
            self.lane_s = max(self.lane_s, float(record["lane_s"]))
        elif kind == "measured":
            best = self.measured.setdefault(record["name"], {})
            if record["metrics"].get("score", -math.inf) > best.get("score", -math.inf):
                self.measured[record["name"]] = record["metrics"]
        elif kind == "exhausted":
            self.exhausted = True
        elif kind == "repeat":
            self.repeats.append(record)
        elif kind == "repair":
            self.repairs.append(record)
        elif kind == "retry":
            for name in record["trials"]:
                self._retry(name)
        elif kind == "quarantine":
            self.quarantined.append(record)
        elif kind == "evaluated":
            self.evaluated.append(record)
        # Kinds of a later raykd with the same format are ignored.

    def _rank(self, trial: TrialRecord) -> tuple[float, int]:
        return (trial.best[0] if trial.best else -math.inf, -self._places[trial.trial])

    def snapshot(self) -> History:
        """A copy that later records do not change, for another thread. Trials that have ended are shared."""
        found = copy.copy(self)
        for name, value in vars(self).items():
            if isinstance(value, list | dict) and value is not self.sweep:
                setattr(found, name, value.copy())
        found.trials = {n: t if t.status in ENDED else t.snapshot() for n, t in self.trials.items()}
        return found

    def _retry(self, name: str) -> None:
        trial = self.trials.get(name)
        if trial is not None and trial.status == "failed":
            trial.status, trial.reason, trial.ended = "waiting", None, None
            trial.retries += 1
            del self.ends[name]

    def _suggest(self, record: Record) -> None:
        if record["trial"] in self.trials:
            return
        if not _TRIAL.fullmatch(record["trial"]):
            raise SweepFailed(f"the ledger names a trial {record['trial'][:100]!r}, which is none of raykd's")
        self._places[record["trial"]] = len(self._places)
        fields = {name: record[name] for name in KINDS["suggest"]}
        student, size = record.get("student", ""), dict(record.get("size", {}))
        trial = TrialRecord(**fields, suggested=record["time"], student=student, size=size)
        self.trials[trial.trial] = trial
        self._note_latency(trial)

    def _note_latency(self, trial: TrialRecord) -> None:
        if trial.student in self.latencies:
            found = self.latencies[trial.student]["metrics"].get("median_ms", math.nan)
            trial.size = {**trial.size, "latency": found}


def _start(trial: TrialRecord, record: Record) -> None:
    trial.status = "running"
    trial.started = trial.started if trial.started is not None else record["time"]
    trial.attempts = max(trial.attempts, int(record["attempt"]))
    trial.lane = record["lane"]
    trial._mark = record["time"]


def _report(trial: TrialRecord, record: Record) -> None:
    # Arrow and TensorBoard have integers of 64 bits: a larger one becomes a float.
    metrics = {
        name: float(value) if isinstance(value, int) and abs(value) >= 2**63 else value
        for name, value in record["metrics"].items()
    }
    epoch = int(record["epoch"])
    if epoch in trial.reports:  # a restarted proxy reports an epoch again: the first report counts
        return
    trial.reports[epoch] = metrics
    trial.times[epoch] = record["time"]
    score = metrics.get("score", math.nan)
    if math.isfinite(score) and (trial.best is None or (-score, epoch) < (-trial.best[0], trial.best[1])):
        trial.best = (float(score), epoch)


def _verdict(trial: TrialRecord, record: Record) -> None:
    epoch = int(record["epoch"])
    if epoch not in trial.verdicts and record.get("audit") and trial.audited is None:
        trial.audited = epoch
    trial.verdicts.setdefault(epoch, record["verdict"])


def _end(trial: TrialRecord, record: Record) -> None:
    trial.status, trial.reason, trial.ended = record["status"], record["reason"], record["time"]
    trial.audited = trial.audited if trial.audited is not None else record.get("audited")


_STEPS = {"start": _start, "report": _report, "verdict": _verdict, "end": _end}


def missing(spec: SweepSpec, history: History) -> list[str]:
    """Names of the references that a sweep wants and has not measured yet."""
    return [name for name in spec.wanted_references() if name not in history.references]
