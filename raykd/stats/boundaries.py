"""Critical values for a paired t test that is looked at after every few replicates.

A study that looks repeatedly at the 5 % level claims a difference between equal arms in far more than 5 % of
cases. A `Plan` fixes beforehand after how many pairs to look, and how large |t| must be at each look, so that
the error over all looks together is alpha.

Why group-sequential alpha spending and not an anytime-valid test: at 3 to 20 replicates an anytime-valid test
needs so large a |t| that it misses many true differences (`benchmarks/ablation_stats.py` prints both). The
price is that the largest number of replicates is fixed beforehand.

Under equal arms the law of (t_3, t_4, ...) does not depend on the variance of the differences. So simulated
standard normal paths give exact boundaries for an unknown variance. The usual approximation turns z
boundaries into t quantiles (Jennison and Turnbull 2000, section 4.4), and is worst at two degrees of freedom,
where studies begin.
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
_FEWEST = 50  # a look whose share of the error is fewer paths than this leaves it to the next look
_SEED = 20_000


@dataclass(frozen=True)
class Plan:
    """At which numbers of pairs to look, and the |t| it takes there.

    mean +- critical_k sd / sqrt(looks_k) is an interval at 1 - alpha. Of `spending` it holds at all looks
    together, hence whenever and for whatever reason a study stops (repeated confidence intervals, Jennison
    and Turnbull 1989). Of `for_precision` it holds where that rule stops.
    """

    looks: tuple[int, ...]
    critical: tuple[float, ...]  # infinite where nothing may be claimed yet
    alpha: float


def spending(looks: Sequence[int], *, alpha: float = 0.05, power: float = 3.0) -> Plan:
    """Alpha spending (Lan and DeMets 1983) by the power family alpha (n / n_max)^power (Kim and DeMets 1987).

    `looks` are rising numbers of pairs, the first at least 2; else `UserError`. alpha is the two-sided error
    over all looks: of m comparisons give each alpha / m, or use `decide_all`. The chance to pass |t| first at
    look k is what the family spends between looks k - 1 and k. A power of 3 loses little against a fixed
    study and still stops early on a clear difference. A power of 1 stops earlier and misses more. The
    boundary of O'Brien and Fleming hardly stops before half of the replicates.
    """
    looks = checked_looks(looks)
    return Plan(looks, _spend(looks, tuple(alpha * (n / looks[-1]) ** power for n in looks)), alpha)


@functools.cache
def _spend(looks: tuple[int, ...], cumulative: tuple[float, ...]) -> tuple[float, ...]:
    """|t| of each look, from paths that have not passed before; `cumulative` is the error up to each look."""
    # On the safe side by one standard error of independent paths: 4.96 % for an alpha of 5 %. The error of
    # Sobol points is smaller than that.
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


def for_precision(looks: Sequence[int], *, alpha: float = 0.05, ends: Sequence[int] = ()) -> Plan:
    """Boundaries for the rule: stop at the first look whose half-width is small enough, or at the last look.

    Ordinary t intervals at 1 - alpha miss too often under this rule, because it stops where the sd happens to
    be small (Anscombe 1953). The rule depends on the sds only, and these are independent of the mean. So the
    chance to miss is E[2 Phi(-c_N s_N / sigma)] over the stopping look N. We take c_n = t_{1 - a/2, n - 1}
    with the largest a for which this chance is at most alpha for every wanted half-width. The intervals are
    far shorter than those of `spending`, and valid only where this rule stops.

    `ends`, rising, are the last looks that the study had before each extension. Up to the last of them the
    boundaries stay as they were, so that an arm that had stopped stays stopped. Behind it we take the largest
    a for which the error of the whole is at most alpha again. This holds if the study was extended because
    intervals were too wide, and not because of where they lie. Raises `UserError` for looks that do not rise.
    """
    looks = checked_looks(looks)
    return Plan(looks, _precise(looks, alpha, tuple(ends)), alpha)


@functools.cache
def _precise(looks: tuple[int, ...], alpha: float, ends: tuple[int, ...] = ()) -> tuple[float, ...]:
    """c_n of each look, for `for_precision`."""
    at = np.array(looks)
    # Boundaries from before the last extension.
    before = _precise(tuple(n for n in looks if n <= ends[-1]), alpha, ends[:-1]) if ends else ()
    new = at[len(before) :] - 1
    # (n - 1) s_n^2 / sigma^2 is chi^2_{n-1}; each further pair adds an independent square of a normal
    # variate.
    u = _sobol(1 + at[-1] - at[0], _LOG_PATHS - 2)
    walk = np.column_stack([special.chdtri(at[0] - 1, u[:, 0]), special.ndtri(u[:, 1:]) ** 2]).cumsum(axis=1)
    s = np.sqrt(walk[:, at - at[0]] / (at - 1))

    def bounds(level: float) -> FloatArray:
        return np.concatenate([before, stats.t.isf(level / 2, new)])

    def missed(level: float, widths: FloatArray) -> FloatArray:
        cs = bounds(level) * s
        return np.array([_miss(cs, at, width) for width in widths])

    # Half-widths in sigma: from one that few paths reach to one that nearly all reach at the first look.
    ordinary = stats.t.isf(alpha / 2, at - 1) / np.sqrt(at)
    widths = np.geomspace(ordinary.min() / 6, ordinary.max(), 24)
    first = missed(alpha, widths)
    level = alpha
    if len(looks) > 1 and first.max() > alpha:
        # The worst width grows a little with the intervals. Bonferroni over the looks is always enough while
        # no look has used its share.
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
    """Scrambled Sobol points inside the unit cube, the same in every call: (2^log_points, dimensions)."""
    points = stats.qmc.Sobol(dimensions, seed=_SEED).random_base2(log_points)
    return np.asarray(np.clip(points, 1e-12, 1 - 1e-12))


def checked_looks(looks: Sequence[int]) -> tuple[int, ...]:
    """The looks of a plan; `UserError` where they do not rise from 2 or more."""
    wanted = "rising numbers of pairs, the first at least 2"
    if not looks or looks[0] < 2 or any(b <= a for a, b in pairwise(looks)):
        raise UserError("looks", "not a plan", value=list(looks), expected=wanted)
    return tuple(int(n) for n in looks)
