"""Critical values for a paired t test that is looked at after every few replicates.

Looking again and again at the 5 % level claims a difference between equal arms far more often than in 5 % of
studies. A `Plan` says beforehand at which numbers of pairs to look and how large |t| must be at each, so that
over all looks together the error is alpha.

Why group-sequential alpha spending and not an anytime-valid test: at 3 to 20 replicates the latter needs
so large a |t| that it misses much of what there is to see (`benchmarks/ablation_stats.py` prints both). The
price is that the largest number of replicates is fixed beforehand; `anytime` is for a study without one.

Under equal arms the law of (t_3, t_4, ...) does not depend on the variance of the differences. So boundaries
for an unknown variance can be had exactly from simulated standard normal paths, and need not be z boundaries
turned into t quantiles, an approximation (Jennison and Turnbull 2000, section 4.4) that is weakest where we
are, at two degrees of freedom.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from scipy import optimize, special, stats

from raykd.stats.paired import FloatArray, IntArray
from trainables.core.errors import UserError

_LOG_PATHS = 18  # of 2
_FEWEST = 50  # a look that may claim in fewer paths than this leaves its share to the next one
_SEED = 20_000


@dataclass(frozen=True)
class Plan:
    """At which numbers of pairs to look, and the |t| it takes there.

    mean +- critical_k sd / sqrt(looks_k) is an interval at 1 - alpha: for `spending` and `anytime` at all
    looks together, hence whenever and for whatever reason one stops (repeated confidence intervals, Jennison
    and Turnbull 1989); for `for_precision` where its own rule stops.
    """

    looks: tuple[int, ...]
    critical: tuple[float, ...]  # infinite where nothing may be claimed yet
    alpha: float


def spending(looks: Sequence[int], *, alpha: float = 0.05, power: float = 3.0) -> Plan:
    """Alpha spending (Lan and DeMets 1983) by the power family alpha (n / n_max)^power (Kim and DeMets 1987).

    alpha is the two-sided error over all looks: of m comparisons give each alpha / m, or use `decide_all`.
    |t| at look k is such that the chance of passing it there first is what the family spends between looks
    k - 1 and k. The default of 3 gives up little of a fixed study's power and still stops early on a clear
    difference; 1 stops earlier and misses more, O'Brien and Fleming's hardly stops before half.
    """
    looks = _checked(looks)
    return Plan(looks, _spend(looks, tuple(alpha * (n / looks[-1]) ** power for n in looks)), alpha)


@functools.cache
def _spend(looks: tuple[int, ...], cumulative: tuple[float, ...]) -> tuple[float, ...]:
    """|t| a look, from paths that have not passed yet; cumulative error allowed by each look."""
    # To the safe side by one standard error of independent paths: 4.96 % for an alpha of 5 %. Sobol points
    # err less than independent ones.
    alpha = cumulative[-1]
    safe = 1 - math.sqrt((1 - alpha) / (alpha * (1 << _LOG_PATHS)))
    x = special.ndtri(_sobol(looks[-1], _LOG_PATHS))
    pairs, used, critical = 0, 0, []
    total, squares = np.zeros(len(x)), np.zeros(len(x))
    for look, allowed in zip(looks, cumulative, strict=True):
        total += x[:, pairs:look].sum(axis=1)
        squares += (x[:, pairs:look] ** 2).sum(axis=1)
        pairs = look
        t = np.abs(total) / np.sqrt((squares - total**2 / look) / (look - 1) * look)
        passing = int(safe * allowed * (1 << _LOG_PATHS)) - used
        if passing < _FEWEST:
            critical.append(math.inf)
            continue
        bound = float(np.partition(t, t.size - passing)[t.size - passing])
        critical.append(bound)
        used += passing
        x, total, squares = x[t < bound], total[t < bound], squares[t < bound]
    return tuple(critical)


def anytime(looks: Sequence[int], *, alpha: float = 0.05, scale: float = 1.0) -> Plan:
    """Boundaries that hold at every number of pairs, without a largest one.

    With a normal prior N(0, scale^2) on the standardised difference and Haar's on the sd, the Bayes factor

        E_n = b^(-1/2) [(1 + t^2 / v) / (1 + t^2 / (b v))]^(n / 2),  b = 1 + n scale^2,  v = n - 1

    is a test martingale of the t statistics under equal arms, so P(any E_n >= 1 / alpha) <= alpha (Ville);
    solved for |t| (Lai 1976; Wang and Ramdas 2024, "Anytime-valid t-tests and confidence sequences for
    Gaussian means with unknown variance"; the factor itself: Rouder et al. 2009 for a normal prior).
    """
    looks = _checked(looks)
    n = np.array(looks, dtype=np.float64)
    b = 1 + n * scale**2
    q = (np.sqrt(b) / alpha) ** (2 / n)
    squared = np.divide(q - 1, 1 - q / b, out=np.full_like(n, np.inf), where=q < b) * (n - 1)
    return Plan(looks, tuple(float(c) for c in np.sqrt(squared)), alpha)


def for_precision(looks: Sequence[int], *, alpha: float = 0.05, ends: Sequence[int] = ()) -> Plan:
    """Boundaries for the rule: stop at the first look whose half-width is small enough, or at the last look.

    Ordinary t intervals at 1 - alpha miss too often under this rule, for it stops where the sd came out small
    (Anscombe 1953). The rule sees the sds only, and they are independent of the mean, so the chance to miss
    is E[2 Phi(-c_N s_N / sigma)] over the stopping look N. We take c_n = t_{1 - a/2, n - 1} with the largest
    a for which this is at most alpha whatever the wanted half-width is, as a multiple of sigma. The intervals
    are far shorter than those of `spending`, and valid where this rule stops and nowhere else.

    `ends` are last looks that the study was to have before it was extended, rising. Up to the last of them
    the boundaries stay what they were, so that what had stopped stays stopped; behind it the largest a is
    taken for which the whole is again wrong in at most alpha. That holds where what asked for more were
    intervals that are too wide, and not where they lie.
    """
    looks = _checked(looks)
    return Plan(looks, _precise(looks, alpha, tuple(ends)), alpha)


@functools.cache
def _precise(looks: tuple[int, ...], alpha: float, ends: tuple[int, ...] = ()) -> tuple[float, ...]:
    at = np.array(looks)
    # Boundaries that stand already.
    before = _precise(tuple(n for n in looks if n <= ends[-1]), alpha, ends[:-1]) if ends else ()
    new = at[len(before) :] - 1
    # (n - 1) s_n^2 / sigma^2 is chi^2_{n-1}, and goes on by independent squares of normal variates.
    u = _sobol(1 + at[-1] - at[0], _LOG_PATHS - 2)
    walk = np.column_stack([special.chdtri(at[0] - 1, u[:, 0]), special.ndtri(u[:, 1:]) ** 2]).cumsum(axis=1)
    s = np.sqrt(walk[:, at - at[0]] / (at - 1))

    def bounds(level: float) -> FloatArray:
        return np.concatenate([before, stats.t.isf(level / 2, new)])

    def missed(level: float, widths: FloatArray) -> FloatArray:
        cs = bounds(level) * s
        return np.array([_miss(cs, at, width) for width in widths])

    # Half-widths in sigma: from one that hardly a path reaches to one that nearly all reach at once.
    ordinary = stats.t.isf(alpha / 2, at - 1) / np.sqrt(at)
    widths = np.geomspace(ordinary.min() / 6, ordinary.max(), 24)
    first = missed(alpha, widths)
    level = alpha
    if len(looks) > 1 and first.max() > alpha:
        # The worst width grows a little with the intervals. Bonferroni over the looks is always enough where
        # none of them has had its share.
        near = widths[max(int(first.argmax()) - 1, 0) :][:6]
        least = alpha / (1000 if before else len(looks))
        level = optimize.brentq(lambda a: missed(a, near).max() - alpha, least, alpha, xtol=alpha / 1000)
    return tuple(float(c) for c in bounds(level))


def _miss(cs: FloatArray, at: IntArray, width: float) -> float:
    """E[2 Phi(-c_N s_N / sigma)]; cs (paths, looks) holds c_n s_n / sigma."""
    reached = cs / np.sqrt(at) <= width
    first = np.where(reached.any(axis=1), reached.argmax(axis=1), at.size - 1)
    return float(2 * special.ndtr(-np.take_along_axis(cs, first[:, None], axis=1)).mean())


def _sobol(dimensions: int, log_points: int) -> FloatArray:
    """Scrambled Sobol points inside the unit cube: (2^log_points, dimensions), always the same ones."""
    points = stats.qmc.Sobol(dimensions, seed=_SEED).random_base2(log_points)
    return np.asarray(np.clip(points, 1e-12, 1 - 1e-12))


def _checked(looks: Sequence[int]) -> tuple[int, ...]:
    wanted = "rising numbers of pairs, the first at least 2"
    if not looks or looks[0] < 2 or any(b <= a for a, b in pairwise(looks)):
        raise UserError("looks", "not a plan", value=list(looks), expected=wanted)
    return tuple(int(n) for n in looks)
