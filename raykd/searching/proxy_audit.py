"""How well a sweep's early scores predicted its final ones: the audit of the scores that stop trials.

    for rung in audit(spec, history): rung.epoch, rung.found

Only trials that ran to their last epoch count: how a stopped one would have ended is not known. Where a
scheduler stopped trials, those that remain led at every rung. Among them the early order says less than
among all, and a rung that separated good from bad trials well can look worse than it is. With
`proxy: {audit: 0.1}` a tenth of the stopped trials runs on, chosen by chance, and each of these counts for
ten (`raykd.stats.prediction`). Then the numbers are those of all trials, but for those that failed or whose
scores were not finite.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from raykd.records.history import History, TrialRecord
from raykd.spec.search import SearchSpec
from raykd.stats.prediction import Prediction, predictions


@dataclass(frozen=True)
class Rung:
    """An epoch at which trials are stopped, or could have been."""

    epoch: int
    stopped: int  # number of trials that the scheduler stopped here, those that ran on included
    audited: int  # number of these that ran on to the end
    found: Prediction
    methods: dict[str, Prediction]  # by method, where there are several


@dataclass(frozen=True)
class Ended:
    """A trial that ran to its last epoch, its score there, and how many trials it stands for."""

    trial: TrialRecord
    final: float
    weight: float


def ended(spec: SearchSpec, history: History) -> list[Ended]:
    """The trials that ran to their last epoch and have a finite score there: by themselves, or for the audit.

    Not their best scores: an early one would be among these, and would then predict itself.
    """
    share = spec.audited_share or 1.0
    return [
        Ended(trial, trial.last, 1.0 if trial.audited is None else 1 / share)
        for trial in history.trials.values()
        if trial.status == "finished" and trial.last is not None and math.isfinite(trial.last)
    ]


def audit(spec: SearchSpec, history: History) -> list[Rung]:
    """How well the score at each rung predicted that of the last epoch, over trials that ran to it."""
    whole, found, rungs = ended(spec, history), [], spec.scheduler.rungs(spec.epochs)
    places = [
        _rung_of(t.epoch if t.audited is None else t.audited, rungs)
        for t in history.trials.values()
        if t.status == "stopped" or t.audited is not None
    ]
    for epoch in rungs:
        of = predicted(whole, "score", epoch)
        methods = {method: one for method, one in of.items() if method is not None}
        seen = sum(e.trial.audited is not None and _rung_of(e.trial.audited, rungs) == epoch for e in whole)
        found.append(Rung(epoch, places.count(epoch), seen, of[None], methods))
    return found


def predicted(
    whole: list[Ended], metric: str, epoch: int, *, methods: bool = True
) -> dict[str | None, Prediction]:
    """How well a metric at an epoch predicted the score at the end: over all under None, and by method."""
    pairs = [(value, e) for e in whole if (value := value_at(e.trial, metric, epoch)) is not None]
    return predictions(
        [value for value, _ in pairs],
        [e.final for _, e in pairs],
        [e.weight for _, e in pairs],
        [e.trial.method for _, e in pairs] if methods else (),
    )


def value_at(trial: TrialRecord, metric: str, epoch: int) -> float | None:
    """A metric as the scheduler saw it at a rung: the first at or past `epoch`; None if it is not finite."""
    probed = [e for e, metrics in trial.reports.items() if e >= epoch and metric in metrics]
    value = trial.reports[min(probed)][metric] if probed else math.nan
    return value if math.isfinite(value) else None


def _rung_of(epoch: int, known: list[int]) -> int:
    """The rung at which a trial was stopped that ended after `epoch`; 0 if that is before the first rung."""
    return max((rung for rung in known if rung <= epoch), default=0)
