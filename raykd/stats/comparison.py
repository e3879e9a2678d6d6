"""Several arms against a base: every number that a study's table shows of an arm.

The comparisons of a study are one family: at most alpha of all studies claim a difference that is not there.
The p values are Holm's (1979). The simultaneous intervals are Bonferroni's, each at 1 - alpha / m. Unlike
Dunnett's they need no common variance and no normal theory across arms. They agree with Holm: where an
interval leaves out zero, Holm rejects. (Holm may also reject where the interval still holds zero.)
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from raykd.stats.improvement import Improvement, probability_of_improvement
from raykd.stats.paired import FloatArray, Interval, PairedT, paired_t, standardised_difference
from raykd.stats.power import detectable_difference


@dataclass(frozen=True)
class Comparison:
    """One arm against another, over the replicates in which both finished. Points, unless said otherwise."""

    pairs: int
    left_out: int  # replicates in which a side failed
    mean: float  # of the differences, arm minus base
    sd: float
    interval: Interval  # of the mean, at 1 - alpha, for this comparison alone
    simultaneous: Interval  # of the mean, at 1 - alpha for all comparisons of the family together
    p: float  # paired t, two-sided
    p_holm: float  # the same, corrected for the family
    effect: float  # standardised difference (Hedges' g_z), no unit
    improvement: Improvement
    wins: int
    ties: int
    losses: int
    detectable: float  # smallest true difference found with power 0.8 at the simultaneous level
    comparisons: int  # size of the family: comparisons with a p value


def holm(p: ArrayLike) -> FloatArray:
    """Holm's step-down adjusted p values over the last axis; a NaN stays NaN and is not counted.

    With the m values sorted upwards: adjusted_(i) = max over j <= i of min(1, (m - j + 1) p_(j)), j from 1
    (Holm 1979). Rejecting where adjusted <= alpha keeps the family-wise error at alpha under any dependence.
    """
    p = np.asarray(p, dtype=np.float64)
    order = np.argsort(p, axis=-1)  # NaN last
    count = np.isfinite(p).sum(axis=-1, keepdims=True)
    factor = np.maximum(count - np.arange(p.shape[-1]), 1)
    stepped = np.minimum(np.maximum.accumulate(np.take_along_axis(p, order, -1) * factor, axis=-1), 1.0)
    adjusted = np.empty_like(p)
    np.put_along_axis(adjusted, order, stepped, axis=-1)
    return adjusted


def compare_to_base(
    arms: ArrayLike, base: ArrayLike, *, alpha: float = 0.05, step: float = 0.0, families: int = 1
) -> list[Comparison]:
    """Each arm against the base as one family. arms (m, replicates), base (replicates,); NaN = failed.

    `step` is the resolution of the scores, see `paired_t`. Where a study makes claims of several `families`,
    each has alpha / families: Holm's p values are multiplied by their number.
    """
    base = np.asarray(base, dtype=np.float64)
    arms = np.asarray(arms, dtype=np.float64).reshape(-1, base.size)
    differences = arms - base
    test = paired_t(differences, step=step)
    count = int(np.isfinite(test.p).sum())
    each = alpha / (families * max(count, 1))
    alone, together = _intervals(test, alpha), _intervals(test, each)
    adjusted = np.minimum(families * holm(test.p), 1.0)
    found = []
    for i, arm in enumerate(arms):
        there = np.isfinite(differences[i])
        d, n, mean, sd = differences[i][there], int(test.pairs[i]), float(test.mean[i]), float(test.sd[i])
        found.append(
            Comparison(
                pairs=n,
                left_out=differences.shape[-1] - n,
                mean=mean,
                sd=sd,
                interval=alone[i],
                simultaneous=together[i],
                p=float(test.p[i]),
                p_holm=float(adjusted[i]),
                effect=standardised_difference(mean, sd, n),
                improvement=probability_of_improvement(arm[there], base[there], alpha=alpha),
                wins=int((d > 0).sum()),
                ties=int((d == 0).sum()),
                losses=int((d < 0).sum()),
                detectable=sd * _detectable(n, each),
                comparisons=count,
            )
        )
    return found


def _intervals(test: PairedT, alpha: float) -> list[Interval]:
    """NaN where there is no p value: differences that are all equal say nothing about their spread."""
    half = np.where(np.isfinite(test.p), test.half_width(alpha), np.nan)
    ends = zip(test.mean - half, test.mean + half, strict=True)
    return [Interval(float(low), float(high)) for low, high in ends]


@functools.cache
def _detectable(pairs: int, alpha: float) -> float:
    """The detectable difference as a multiple of the sd."""
    return detectable_difference(1.0, pairs, alpha)
