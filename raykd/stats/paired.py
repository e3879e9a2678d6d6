"""Paired differences: what replicates that share a seed say about one arm against another.

Scores are points, and higher is better. Axis -1 is the replicate, and a failed trial is NaN. A pair with a
failed side is left out and counted, and never filled in.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special, stats

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]


class Interval(NamedTuple):
    """The two ends; NaN where the data give none, infinite where they bound nothing."""

    low: float
    high: float

    @property
    def half_width(self) -> float:
        """Half of the distance between the ends."""
        return (self.high - self.low) / 2


class PairedT(NamedTuple):
    """One entry a comparison: pairs, their mean difference and its sd (points), t and the two-sided p."""

    pairs: IntArray
    mean: FloatArray
    sd: FloatArray
    t: FloatArray
    p: FloatArray

    def half_width(self, alpha: float) -> FloatArray:
        """Half of the (1 - alpha) t interval of the mean: t_{1-alpha/2, n-1} sd / sqrt(n), in points."""
        quantile = stats.t.isf(alpha / 2, np.where(self.pairs > 1, self.pairs - 1, np.nan))
        return np.asarray(quantile * self.sd / np.sqrt(np.maximum(self.pairs, 1)))


def paired_t(differences: ArrayLike, *, step: float = 0.0) -> PairedT:
    """Student's paired t over the last axis: t = mean / (sd / sqrt(n)) on n - 1 degrees of freedom.

    differences (..., replicates) in points, arm minus base, not finite where a side failed. With fewer than
    two pairs sd, t and p are NaN.

    `step` is the resolution of the scores: 100 / images points for an accuracy. Three replicates can differ
    by exactly the same number of images. Their sd of zero is then an effect of the resolution, and no
    certainty. So sd is at least what rounding alone gives the difference of two scores, step / sqrt(6) (each
    side is uniform within its step: step^2 / 12). Without a step, differences that are all equal say nothing
    about their spread: sd is 0, t and p are NaN.
    """
    d = np.asarray(differences, dtype=np.float64)
    there = np.isfinite(d)
    d = np.where(there, d, 0.0)
    n = there.sum(axis=-1)
    mean = np.where(n > 0, d.sum(axis=-1) / np.maximum(n, 1), np.nan)
    residual = np.where(there, d - mean[..., None], 0.0)
    sd = np.where(n > 1, np.sqrt((residual**2).sum(axis=-1) / np.maximum(n - 1, 1)), np.nan)
    # 70.3 - 70.1 and 80.3 - 80.1 differ in the last bits of a float: such an sd is only rounding.
    sd = np.where(sd <= 1e-9 * np.abs(d).max(axis=-1, initial=0.0), 0.0, sd)
    sd = np.maximum(sd, step / float(np.sqrt(6.0)))
    error = sd / np.sqrt(np.maximum(n, 1))
    t = np.divide(mean, error, out=np.full_like(error, np.nan), where=error > 0)
    p = 2 * stats.t.sf(np.abs(t), np.maximum(n - 1, 1))
    return PairedT(n, mean, sd, t, np.asarray(p))


def standardised_difference(mean: float, sd: float, pairs: int) -> float:
    """Hedges' correction of d_z = mean / sd of the paired differences; no unit.

    g_z = J(n - 1) d_z with J(v) = Gamma(v / 2) / (sqrt(v / 2) Gamma((v - 1) / 2)), which removes the upward
    bias of d_z (Hedges 1981, eq. 6e). NaN below three pairs, where the mean of d_z does not exist.
    """
    v = pairs - 1
    if v < 2 or not sd > 0:
        return float("nan")
    log_j = special.gammaln(v / 2) - special.gammaln((v - 1) / 2) - 0.5 * np.log(v / 2)
    return float(np.exp(log_j) * mean / sd)


def interquartile_mean(scores: ArrayLike) -> float:
    """The mean of the middle half of an arm's replicates (replicates,), in points (Agarwal et al. 2021).

    As there, floor(n / 4) scores are cut at each end, so that it is the mean of three replicates or fewer.
    Failed ones are left out; NaN where none is left.
    """
    x = np.asarray(scores, dtype=np.float64)
    x = x[np.isfinite(x)]
    return float(stats.trim_mean(x, 0.25)) if x.size else float("nan")


def variance_ratio(arm: ArrayLike, base: ArrayLike) -> float:
    """Variance of the paired differences over that of unpaired ones: var(a - b) / (var(a) + var(b)).

    arm, base (replicates,). Below 1 pairing helps: an unpaired study needs 1 / ratio times the replicates for
    the same standard error. NaN below two pairs, or where neither side varies.
    """
    a, b = np.asarray(arm, dtype=np.float64), np.asarray(base, dtype=np.float64)
    both = np.isfinite(a) & np.isfinite(b)
    if both.sum() < 2:
        return float("nan")
    a, b = a[both], b[both]
    unpaired = a.var(ddof=1) + b.var(ddof=1)
    return float((a - b).var(ddof=1) / unpaired) if unpaired > 0 else float("nan")
