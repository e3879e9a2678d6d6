"""Statistics that benchmarks report and raykd itself does not use."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

from raykd.stats.boundaries import Plan, checked_looks
from raykd.stats.paired import Interval


def anytime(looks: Sequence[int], *, alpha: float = 0.05, scale: float = 1.0) -> Plan:
    """Boundaries that hold at every number of pairs, without a largest one.

    With a normal prior N(0, scale^2) on the standardised difference and Haar's on the sd, the Bayes factor

        E_n = b^(-1/2) [(1 + t^2 / v) / (1 + t^2 / (b v))]^(n / 2),  b = 1 + n scale^2,  v = n - 1

    is a test martingale of the t statistics under equal arms, so P(any E_n >= 1 / alpha) <= alpha (Ville);
    solved for |t| (Lai 1976; Wang and Ramdas 2024, "Anytime-valid t-tests and confidence sequences for
    Gaussian means with unknown variance"; the factor itself: Rouder et al. 2009 for a normal prior).
    Raises `UserError` for looks that do not rise.
    """
    looks = checked_looks(looks)
    n = np.array(looks, dtype=np.float64)
    b = 1 + n * scale**2
    q = (np.sqrt(b) / alpha) ** (2 / n)
    squared = np.divide(q - 1, 1 - q / b, out=np.full_like(n, np.inf), where=q < b) * (n - 1)
    return Plan(looks, tuple(float(c) for c in np.sqrt(squared)), alpha)


def pooled_variance_ratio(scores: ArrayLike, *, alpha: float = 0.05) -> tuple[float, Interval]:
    """`variance_ratio` of all pairs of arms at once, and its (1 - alpha) interval.

    scores (arms, replicates) in points; a replicate that an arm failed is left out. It is 1 less the
    intraclass correlation of Shrout and Fleiss (1979), ICC(3, 1), with their exact interval by F: arms are
    taken to vary alike, and each pair of them to share as much. Of two arms it is `variance_ratio`. NaN below
    two arms or replicates.
    """
    y = np.asarray(scores, dtype=np.float64)
    y = y[:, np.isfinite(y).all(axis=0)]
    k, n = y.shape
    nothing = float("nan")
    if k < 2 or n < 2:
        return nothing, Interval(nothing, nothing)
    of_seed, of_arm = y.mean(axis=0), y.mean(axis=1, keepdims=True)
    freedom = (n - 1, (n - 1) * (k - 1))
    between = k * float(of_seed.var(ddof=1))
    within = float(((y - of_seed - of_arm + y.mean()) ** 2).sum()) / freedom[1]
    if not between + within > 0:
        return nothing, Interval(nothing, nothing)

    def ratio(f: float) -> float:
        return float(k / (f + k - 1))

    f = between / within if within > 0 else float("inf")
    upper, lower = (float(stats.f.isf(tail, *freedom)) for tail in (alpha / 2, 1 - alpha / 2))
    return ratio(f), Interval(ratio(f / lower), ratio(f / upper))
