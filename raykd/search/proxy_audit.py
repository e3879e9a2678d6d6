"""How well a sweep's early scores predicted its final ones: the audit of what it stopped trials by.

    for rung in audit(spec, history): rung.epoch, rung.found

It stands on trials that ran to their last epoch, for of a stopped one nobody knows what it would have become.
Where a scheduler chose which those are, they are the ones that led at every rung: the audit then sees only
the upper part of each rung, and a rung that separated good from bad well can look worse than it is.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from raykd.stats.prediction import Prediction, prediction

if TYPE_CHECKING:
    from raykd.records.history import History, TrialRecord
    from raykd.spec.search import SearchSpec


@dataclass(frozen=True)
class Rung:
    """One epoch at which trials are, or could have been, stopped."""

    epoch: int
    stopped: int  # trials that ended here
    found: Prediction


def rungs(spec: SearchSpec) -> list[int]:
    """The epochs at which the sweep's scheduler judges, its last epoch left out.

    Of a rule that judges every epoch, and of none at all, those at which halving would.
    """
    halving = spec.scheduler.name in ("asha", "hyperband")
    grace = spec.scheduler.grace if spec.scheduler.name != "none" else 1
    factor = spec.scheduler.factor if halving else 2.0
    # A trial is judged at the first epoch at or past a milestone.
    milestones, at = [], float(grace)
    while at < spec.epochs:
        milestones.append(math.ceil(at - 1e-9))
        at *= factor
    return [epoch for epoch in dict.fromkeys(milestones) if epoch < spec.epochs]


def audit(spec: SearchSpec, history: History) -> list[Rung]:
    """Each rung's score against the best score of the whole trial, over trials that ran to the end."""
    whole = [t for t in history.trials.values() if t.status == "finished" and t.best is not None]
    found = []
    for epoch in rungs(spec):
        pairs = [(s, t.best[0]) for t in whole if t.best and (s := score_at(t, epoch)) is not None]
        stopped = sum(
            t.status == "stopped" and _rung_of(t.epoch, rungs(spec)) == epoch for t in history.trials.values()
        )
        found.append(Rung(epoch, stopped, prediction([p[0] for p in pairs], [p[1] for p in pairs])))
    return found


def score_at(trial: TrialRecord, epoch: int) -> float | None:
    """The score that the scheduler judged: the first one at or past `epoch`; None if it is not finite."""
    probed = [e for e, metrics in trial.reports.items() if e >= epoch and "score" in metrics]
    score = trial.reports[min(probed)]["score"] if probed else math.nan
    return score if math.isfinite(score) else None


def _rung_of(epoch: int, known: list[int]) -> int:
    """The rung at which a trial that ended after `epoch` was stopped."""
    return max((rung for rung in known if rung <= epoch), default=0)
