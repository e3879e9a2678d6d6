"""What is known of a trial, and how Optuna is told of it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from optuna.trial import TrialState

from raykd.records.history import ENDED, TrialRecord
from raykd.searching.optuna_state import End


@dataclass
class Told:
    """What is known of a trial, and the numbers of all observations that have its result.

    `sizes` are those of the trial's student among the objectives. With them a stopped trial is COMPLETE: no
    sampler of several objectives understands PRUNED. Its score is then the best that it reached, at most what
    it would have reached, while its sizes are exact. So it can be underrated, and is never overrated. Where a
    size is not known (None), a trial that has ended is FAIL: a sampler needs a value of every objective.
    """

    numbers: list[int]  # Optuna's
    scores: dict[int, float]  # epoch -> finite score
    status: str | None = None  # once it has ended
    sizes: tuple[float, ...] | None = ()

    @property
    def end(self) -> End | None:
        """How Optuna is told that it ended; None while it is in flight."""
        if self.status is None:
            return None
        if self.sizes is None:
            return End(TrialState.FAIL)
        best = max(self.scores.values(), default=None)
        if self.sizes:
            if self.status == "failed" or best is None:
                return End(TrialState.FAIL)
            return End(TrialState.COMPLETE, {}, best, sizes=self.sizes)
        if self.status == "stopped":
            last = self.scores[max(self.scores)] if self.scores else None
            return End(TrialState.PRUNED, self.scores, last)
        if self.status == "finished" and self.scores:
            return End(TrialState.COMPLETE, self.scores, best)
        return End(TrialState.FAIL)


def told_of(trial: TrialRecord, objective: Iterable[str] = ()) -> Told:
    """What a proposer that had been there would know of the trial, but for its numbers."""
    scores = {epoch: metrics.get("score", math.nan) for epoch, metrics in trial.reports.items()}
    finite = {epoch: float(score) for epoch, score in scores.items() if math.isfinite(score)}
    sizes = sizes_among(objective, trial.size)
    if trial.audited is not None:
        return Told([], {e: score for e, score in finite.items() if e <= trial.audited}, "stopped", sizes)
    return Told([], finite, trial.status if trial.status in ENDED else None, sizes)


def sizes_among(objective: Iterable[str], size: Mapping[str, float]) -> tuple[float, ...] | None:
    """The logarithm of each size that is an objective, in their order; () where the score is the only one.

    None where one of them is not known: its student could not be built, or the record of its latency is lost.
    """
    found = [size.get(name, math.nan) for name in objective if name != "score"]
    if not all(map(math.isfinite, found)):
        return None
    return tuple(math.log10(max(1e-9, value)) for value in found)
