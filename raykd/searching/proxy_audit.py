"""How well a sweep's early scores predicted its final ones: the audit of the scores that stop trials.

    for rung in audit(spec, history): rung.epoch, rung.found

Only trials that ran to their last epoch count: how a stopped one would have ended is not known. Where a
scheduler stopped trials, those that remain led at every rung. The audit then sees only the upper part of each
rung, and a rung that separated good from bad trials well can look worse than it is.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from raykd.records.history import History, TrialRecord
from raykd.spec.search import SearchSpec
from raykd.stats.prediction import Prediction, prediction


@dataclass(frozen=True)
class Rung:
    """An epoch at which trials are stopped, or could have been."""

    epoch: int
    stopped: int  # number of trials that ended here
    found: Prediction


def audit(spec: SearchSpec, history: History) -> list[Rung]:
    """How well the score at each rung predicted a trial's best score, over trials that ran to the end."""
    whole = [t for t in history.trials.values() if t.status == "finished" and t.best is not None]
    found, rungs = [], spec.scheduler.rungs(spec.epochs)
    for epoch in rungs:
        pairs = [(s, t.best[0]) for t in whole if t.best and (s := score_at(t, epoch)) is not None]
        stopped = sum(
            t.status == "stopped" and _rung_of(t.epoch, rungs) == epoch for t in history.trials.values()
        )
        found.append(Rung(epoch, stopped, prediction([p[0] for p in pairs], [p[1] for p in pairs])))
    return found


def score_at(trial: TrialRecord, epoch: int) -> float | None:
    """The score that the scheduler saw at a rung: the first one at or past `epoch`; None if not finite."""
    probed = [e for e, metrics in trial.reports.items() if e >= epoch and "score" in metrics]
    score = trial.reports[min(probed)]["score"] if probed else math.nan
    return score if math.isfinite(score) else None


def _rung_of(epoch: int, known: list[int]) -> int:
    """The rung at which a trial was stopped that ended after `epoch`; 0 if that is before the first rung."""
    return max((rung for rung in known if rung <= epoch), default=0)
