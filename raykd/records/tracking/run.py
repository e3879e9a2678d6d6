"""What a tracker holds of one trial or one reference. It follows from the ledger alone."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from raykd.records.history import ENDED, History, TrialRecord
from raykd.records.ledger import Record
from raykd.records.scalars import scalars

INTERRUPTED = "interrupted"  # its driver has ended, and the trial has not


@dataclass(frozen=True)
class Epoch:
    """What was reported after an epoch. `time` is unix seconds."""

    epoch: int
    time: float
    scalars: dict[str, float]


@dataclass(frozen=True)
class Run:
    """One run. Times are unix seconds."""

    id: str  # the same for ever, and no other sweep's
    name: str
    kind: str  # trial | reference
    status: str  # running | finished | stopped | failed | interrupted
    started: float
    ended: float | None
    config: dict[str, Any]  # flat name -> value
    facts: dict[str, Any]  # what is known besides: the sweep, the seed, why it failed
    epochs: list[Epoch] = field(default_factory=list)  # in the order in which they came
    before: int = 0  # how many further epochs the writer has been given already, which `epochs` leaves out

    def digest(self, where: str) -> str:
        """16 hex digits of everything in it, and of the place `where` it is written to."""
        text = json.dumps([where, asdict(self)], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def without(self, before: int) -> Run:
        """The run without its first epochs, which the writer has been given."""
        return replace(self, epochs=self.epochs[before:], before=before) if before else self

    @classmethod
    def parsed(cls, raw: dict[str, Any]) -> Run:
        """The run that `asdict` made `raw` of."""
        return cls(**{**raw, "epochs": [Epoch(**each) for each in raw["epochs"]]})


def key_of(history: History) -> str:
    """8 hex digits for a sweep: two sweeps of one name, or with one trial in common, share no run."""
    head = history.sweep or {}
    return hashlib.sha256(json.dumps([history.spec["name"], head.get("time")]).encode()).hexdigest()[:8]


def trial_run(history: History, trial: TrialRecord, until: int | None = None) -> Run:
    """The run of a trial that has started. With `until` as it was after that epoch, when it was running."""
    trial = trial.snapshot()  # the recorder's thread may add to it
    reported = [epoch for epoch in trial.reports if until is None or epoch <= until]
    ended = trial.status in ENDED and until is None
    facts = {
        "trial": trial.trial,
        "arm": trial.arm,
        "seed": trial.replicate,
        "origin": trial.origin,
        "number": trial.number,
        "best_epoch": trial.best[1] if trial.best and ended else None,
        "reason": trial.reason if ended else None,
    }
    return Run(
        id=f"{trial.trial}-{key_of(history)}",
        name=trial.trial,
        kind="trial",
        status=trial.status if ended else "running",
        started=trial.started if trial.started is not None else trial.suggested,
        ended=trial.ended if ended else None,
        config=trial.config,
        facts=_known(history, facts),
        epochs=[Epoch(epoch, trial.times[epoch], scalars(trial, epoch)) for epoch in reported],
    )


def reference_run(history: History, record: Record) -> Run:
    """The run of a reference: its metrics after the only epoch, 0."""
    time = float(record["time"])
    trial = record["trial"] if isinstance(record["trial"], dict) else {}
    return Run(
        id=f"{record['name']}-{key_of(history)}",
        name=f"reference: {record['label']}",
        kind="reference",
        status="finished",
        started=time,
        ended=time,
        config={name: value for name, value in trial.items() if not isinstance(value, dict)},
        facts=_known(history, {"reference": record["name"], "label": record["label"]}),
        epochs=[Epoch(0, time, {"epoch": 0.0, **record["metrics"]})],
    )


def _known(history: History, facts: dict[str, Any]) -> dict[str, Any]:
    common = {"sweep": history.spec["name"], "sweep_key": key_of(history)}
    return {**common, **{name: value for name, value in facts.items() if value is not None}}
