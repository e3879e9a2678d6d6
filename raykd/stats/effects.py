"""Main effects and two-way interactions of a factorial study: a linear model with the seed as a block."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations, product

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

from raykd.stats.comparison import holm
from raykd.stats.designs import Effect
from raykd.stats.paired import FloatArray, IntArray, Interval
from trainables.core.errors import UserError


@dataclass(frozen=True)
class EffectEstimate:
    """One contrast, in points.

    A main effect (one factor, level l) is the mean at level l minus the mean at level 0, over all settings of
    the other factors. An interaction (two factors, levels l and m) is the difference of the first factor's
    effect between level m and level 0 of the second one, (y_lm - y_0m) - (y_l0 - y_00). That is twice what
    textbooks on two-level designs call AB.
    """

    factors: Effect
    levels: tuple[int, ...]
    estimate: float
    error: float  # its standard error
    interval: Interval  # at 1 - alpha, for this effect alone
    simultaneous: Interval  # at 1 - alpha for all effects together (Bonferroni)
    p: float
    p_holm: float
    aliases: tuple[Effect, ...]  # main effects and two-way interactions that this design mixes into it


@dataclass(frozen=True)
class FactorialResult:
    """All effects, and what their intervals stand on."""

    effects: tuple[EffectEstimate, ...]
    sd: float  # of a score about the model, points
    freedom: int  # residual degrees of freedom
    left_out: int  # scores that failed
    lack_of_fit: float  # p value of what lies beyond two-way interactions; NaN where it cannot be tested


def factorial_effects(
    levels: ArrayLike, scores: ArrayLike, *, alpha: float = 0.05, step: float = 0.0, families: int = 1
) -> FactorialResult:
    """Least squares of score = replicate + main effects + two-way interactions + error.

    levels (runs, factors): the design, 0 the base's level; scores (replicates, runs) in points, NaN = failed.
    The replicate is a block, which removes what a seed does to all runs alike. The coding of each factor sums
    to zero over its levels, so that effects average over the levels of the other factors, also where trials
    failed. Columns of a two-level fraction that are equal but for the sign are one effect, named by the
    lowest of its aliases (main effects first). Intervals are estimate +- t_{1-alpha/2, df} error.

    The error holds everything above two-way interactions. `lack_of_fit` compares it with the scatter over
    replicates (F test against one mean a run): a small p says that the model is too simple. `step` is the
    resolution of the scores, see `paired_t`; here the least sd is step / sqrt(12). For `families` see
    `compare_to_base`.

    Raises `UserError` where failures or the design leave an effect undetermined.
    """
    design, y = np.asarray(levels, dtype=np.int64), np.asarray(scores, dtype=np.float64)
    replicates, runs = y.shape
    there = np.isfinite(y)
    which = there.any(axis=1)
    names, columns, aliases = _columns(design)
    blocks = np.repeat(np.eye(replicates)[:, which], runs, axis=0)
    x = np.hstack([blocks, np.tile(columns, (replicates, 1))])[there.ravel()]
    values = y.ravel()[there.ravel()]
    if not values.size or np.linalg.matrix_rank(x) < x.shape[1]:
        raise UserError(
            "replicates",
            "the trials that finished leave an effect undetermined",
            value=f"{values.size} of {y.size} trials for {x.shape[1]} unknowns",
            expected="every run in a replicate or more, and no fraction of a factor with over two levels",
        )
    inverse = np.linalg.inv(x.T @ x)
    beta = inverse @ x.T @ values
    residual = float(((values - x @ beta) ** 2).sum())
    freedom = values.size - x.shape[1]
    sd = _residual_sd(residual, freedom, values, step)
    offset = int(which.sum())
    contrasts, labels = _contrasts(design, names, offset, x.shape[1])
    estimate = contrasts @ beta
    error = sd * np.sqrt(np.einsum("ij,jk,ik->i", contrasts, inverse, contrasts))
    p = 2 * stats.t.sf(np.abs(estimate) / error, freedom)
    half, wide = (stats.t.isf(a / 2, freedom) * error for a in (alpha, alpha / len(labels) / families))
    found = zip(labels, estimate, error, half, wide, p, np.minimum(families * holm(p), 1.0), strict=True)
    effects = []
    for (factors, places), b, se, h, w, one, corrected in found:
        alone, together = Interval(float(b - h), float(b + h)), Interval(float(b - w), float(b + w))
        numbers = (float(b), float(se), alone, together, float(one), float(corrected))
        effects.append(EffectEstimate(factors, places, *numbers, aliases[factors]))
    return FactorialResult(
        effects=tuple(effects),
        sd=sd,
        freedom=freedom,
        left_out=y.size - values.size,
        lack_of_fit=_lack_of_fit(blocks[there.ravel()], there, values, residual, freedom),
    )


def _residual_sd(residual: float, freedom: int, values: FloatArray, step: float) -> float:
    """The sd of the residuals; NaN without degrees of freedom, or where the fit is exact but for rounding."""
    if not freedom:
        return math.nan
    sd = math.sqrt(residual / freedom)
    if sd <= 1e-9 * np.abs(values).max():
        sd = 0.0
    return max(sd, step / math.sqrt(12)) or math.nan


def _coding(levels: int) -> FloatArray:
    """(levels, levels - 1): columns sum to zero; column j is 1 at level j + 1 and -1 at level 0."""
    return np.vstack([-np.ones(levels - 1), np.eye(levels - 1)])


def _columns(
    design: IntArray,
) -> tuple[list[Effect], FloatArray, dict[Effect, tuple[Effect, ...]]]:
    """The effects of the model, their columns (runs, coefficients), and each one's aliases."""
    factors = design.shape[1]
    sizes = design.max(axis=0) + 1
    coded = [_coding(sizes[f])[design[:, f]] for f in range(factors)]
    wanted: list[Effect] = [(f,) for f in range(factors)] + list(combinations(range(factors), 2))
    names: list[Effect] = []
    kept: list[FloatArray] = []
    aliases: dict[Effect, tuple[Effect, ...]] = {}
    for effect in wanted:
        columns = coded[effect[0]]
        if len(effect) == 2:
            columns = np.einsum("ri,rj->rij", columns, coded[effect[1]]).reshape(len(design), -1)
        same = [
            name
            for name, other in zip(names, kept, strict=True)
            if columns.shape[1] == other.shape[1] == 1 and abs(columns[:, 0] @ other[:, 0]) == len(design)
        ]
        if same:
            aliases[same[0]] += (effect,)
            continue
        names.append(effect)
        kept.append(columns)
        aliases[effect] = ()
    return names, np.hstack(kept), aliases


def _contrasts(
    design: IntArray, names: Sequence[Effect], offset: int, width: int
) -> tuple[FloatArray, list[tuple[Effect, tuple[int, ...]]]]:
    """Rows that turn coefficients into effects against level 0, and each row's factors and levels."""
    sizes = design.max(axis=0) + 1
    rows, labels = [], []
    for effect in names:
        # Level l against level 0 in the coding: e_l + 1; for an interaction the product of the two.
        steps = [_coding(sizes[f])[1:] - _coding(sizes[f])[0] for f in effect]
        block = steps[0] if len(steps) == 1 else np.kron(steps[0], steps[1])
        for row, place in zip(block, product(*(range(1, int(sizes[f])) for f in effect)), strict=True):
            full = np.zeros(width)
            full[offset : offset + row.size] = row
            rows.append(full)
            labels.append((effect, place))
        offset += block.shape[1]
    return np.array(rows), labels


def _lack_of_fit(
    blocks: FloatArray,
    there: np.ndarray[tuple[int, ...], np.dtype[np.bool_]],
    values: FloatArray,
    residual: float,
    freedom: int,
) -> float:
    """F test of the model against one mean a run, both with blocks."""
    replicates, runs = there.shape
    cells = np.tile(np.eye(runs), (replicates, 1))[there.ravel()]
    x = np.hstack([blocks, cells])
    beta, _, rank, _ = np.linalg.lstsq(x, values, rcond=None)
    pure, left = float(((values - x @ beta) ** 2).sum()), values.size - int(rank)
    if left < 1 or freedom <= left or not pure > 0:
        return math.nan
    ratio = (residual - pure) / (freedom - left) / (pure / left)
    return float(stats.f.sf(ratio, freedom - left, left))
