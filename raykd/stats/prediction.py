"""How well an early score predicts the final one: stopping trials early relies on it."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

from raykd.stats.bootstrap import bootstrap
from raykd.stats.paired import FloatArray, IntArray, Interval


@dataclass(frozen=True)
class Estimate:
    """A number and its percentile bootstrap interval; NaN where the data give none."""

    value: float
    interval: Interval


@dataclass(frozen=True)
class Prediction:
    """Of trials that have both scores."""

    trials: int
    best: int  # k of the recall
    correlation: Estimate  # Spearman's, in [-1, 1]
    recall: Estimate  # share of the k best at the end that were among the k best early, in [0, 1]
    regret: Estimate  # the best final score minus that of the early leader, points


def prediction(early: ArrayLike, final: ArrayLike) -> Prediction:
    """`early` and `final` (trials,): finite scores, more is better. k is a quarter of the trials, at least 1.

    Intervals are at 95 %, over resamples of trials. The correlation and its interval need three trials
    and scores that differ. Of trials with equal scores the earlier one counts as the better one.
    """
    early, final = np.asarray(early, dtype=np.float64), np.asarray(final, dtype=np.float64)
    best = max(1, round(early.size / 4))

    def correlate(at: IntArray) -> float:
        if at.size < 3 or np.ptp(early[at]) == 0 or np.ptp(final[at]) == 0:
            return math.nan
        return float(np.corrcoef(stats.rankdata(early[at]), stats.rankdata(final[at]))[0, 1])

    def recall(at: IntArray) -> float:
        return len({*_leaders(early[at], best)} & {*_leaders(final[at], best)}) / best

    def regret(at: IntArray) -> float:
        return float(final[at].max() - final[at][_leaders(early[at], 1)[0]])

    found = []
    for statistic in (correlate, recall, regret):
        if not early.size:
            found.append(Estimate(math.nan, Interval(math.nan, math.nan)))
            continue
        drawn = bootstrap(statistic, early.size, resamples=1000)
        ends = (float(drawn.low), float(drawn.high)) if early.size >= 3 else (math.nan, math.nan)
        found.append(Estimate(float(drawn.value), Interval(*ends)))
    return Prediction(int(early.size), best, *found)


def _leaders(scores: FloatArray, count: int) -> list[int]:
    """The places of the best scores, best first."""
    return [int(i) for i in np.argsort(-scores, kind="stable")[:count]]
