"""How well an early score predicts the final one: stopping trials early relies on it.

    prediction(early, final, weights)

Where a rule chose which trials ran to the end, those that remain are the stronger ones, and the early order
says less among them than among all. If some of the others run on by chance, each stands for all that were
stopped like it: a trial that is seen with probability p has the weight 1 / p (Horvitz and Thompson 1952).
With these weights every number here estimates that of all trials. Weights need no scale.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import ArrayLike

from raykd.stats.paired import FloatArray, IntArray, Interval

DRAWN = 10  # trials of which the early leader is taken, for the regret; half of all if that is less
RESAMPLES = (100, 1000)  # the least and the most, by how many trials there are
_PAIRS = 200_000  # pairs of scores in all resamples together: a second or less
_CELLS = 2_000_000  # numbers of an array at once
G = TypeVar("G", bound=Hashable)


@dataclass(frozen=True)
class Estimate:
    """A number and its 95 % percentile bootstrap interval; NaN where the data give none."""

    value: float
    interval: Interval


@dataclass(frozen=True)
class Prediction:
    """Of trials that have both scores."""

    trials: int
    drawn: int  # trials of a set that `regret` is over
    effective: float  # as many trials of one weight say as much: (sum w)^2 / sum w^2 (Kish 1965)
    correlation: Estimate  # Spearman's, in [-1, 1]
    recall: Estimate  # share of the best quarter at the end that was in the best quarter early, in [0, 1]
    regret: Estimate  # the best final score less the early leader's, mean over sets of `drawn` trials, points


def prediction(
    early: ArrayLike,
    final: ArrayLike,
    weights: ArrayLike | None = None,
    *,
    resamples: int | None = None,
    seed: int = 0,
) -> Prediction:
    """How well `early` (n,) predicts `final` (n,): finite scores, more is better. `weights` (n,) may be None.

    A quarter is rounded to whole trials, at least 1. The regret is that of ten trials, or of half of all,
    rounded up, if that is less. Of trials with equal scores the earlier one counts as the better one, but
    ranks are shared.

    Intervals are over resamples of the trials (Efron 1979): 1,000, or fewer of more than 200 trials. They
    need three trials, and the correlation needs scores that differ. Raises `ValueError` for arrays that do
    not fit, and for weights that are not positive.
    """
    early, final = np.asarray(early, dtype=np.float64), np.asarray(final, dtype=np.float64)
    given = np.ones_like(early) if weights is None else np.asarray(weights, dtype=np.float64)
    if early.ndim != 1 or not early.shape == final.shape == given.shape:
        raise ValueError("scores and weights are not arrays of one length")
    if not (np.isfinite(early) & np.isfinite(final) & np.isfinite(given) & (given > 0)).all():
        raise ValueError("a score or a weight is not finite, or a weight is not positive")
    if not early.size:
        nothing = Estimate(math.nan, Interval(math.nan, math.nan))
        return Prediction(0, 0, 0.0, nothing, nothing, nothing)
    sample = _Sample(early, final, given)
    value = sample.statistics(np.ones((1, early.size)))[0]
    ends = np.full((2, 3), math.nan)
    if early.size >= 3:
        few, many = RESAMPLES
        ends = _interval(sample, resamples or min(many, max(few, _PAIRS // early.size)), seed)
    else:
        value[0] = math.nan
    found = [
        Estimate(float(one), Interval(float(low), float(high)))
        for one, low, high in zip(value, *ends, strict=True)
    ]
    effective = given.sum() ** 2 / (given**2).sum()
    return Prediction(int(early.size), sample.drawn, float(effective), *found)


def predictions(
    early: ArrayLike, final: ArrayLike, weights: ArrayLike | None = None, groups: Sequence[G] = ()
) -> dict[G | None, Prediction]:
    """`prediction` over all trials under None, and over those of each of the `groups` (n,), if several."""
    early, final = np.asarray(early, dtype=np.float64), np.asarray(final, dtype=np.float64)
    given = np.ones_like(early) if weights is None else np.asarray(weights, dtype=np.float64)
    found: dict[G | None, Prediction] = {None: prediction(early, final, given)}
    names = list(dict.fromkeys(groups))
    for name in names if len(names) > 1 else ():
        own = np.array([group == name for group in groups])
        found[name] = prediction(early[own], final[own], given[own])
    return found


class _Sample:
    """Pairs of scores, sorted once. A resample is how often each pair is in it."""

    def __init__(self, early: FloatArray, final: FloatArray, weights: FloatArray) -> None:
        self.final, self.weights = final, weights
        self.early_order, self.final_order = _ascending(early), _ascending(final)
        self.early_ties, self.final_ties = _ties(early), _ties(final)
        self.share = max(1, round(early.size / 4)) / early.size
        self.drawn = min(DRAWN, max(1, early.size // 2 + early.size % 2))

    def statistics(self, counts: FloatArray) -> FloatArray:
        """(resamples, n) -> (resamples, 3): correlation, recall, regret; NaN where one is not defined."""
        mass = counts * self.weights
        total = mass.sum(axis=1, keepdims=True)
        ranks = (self._ranks(ties, mass) for ties in (self.early_ties, self.final_ties))
        centred_early, centred_final = (r - (mass * r).sum(axis=1, keepdims=True) / total for r in ranks)
        covariance = (mass * centred_early * centred_final).sum(axis=1)
        spreads = [(mass * centred**2).sum(axis=1) for centred in (centred_early, centred_final)]
        with np.errstate(divide="ignore", invalid="ignore"):
            scale = np.sqrt(spreads[0] * spreads[1])
            correlation = np.where(scale > 0, covariance / scale, math.nan)
        among = np.minimum(
            *(self._among_best(order, mass, total) for order in (self.early_order, self.final_order))
        )
        recall = (mass * among).sum(axis=1) / (self.share * total[:, 0])
        even = mass / total * mass.shape[1]
        leads, wins = (self._leads(order, even) for order in (self.early_order, self.final_order))
        return np.stack([correlation, recall, ((wins - leads) * self.final).sum(axis=1)], axis=1)

    def _ranks(self, ties: IntArray, mass: FloatArray) -> FloatArray:
        """What lies below each trial, half of its equals included, itself left out: ranks, if all weigh 1.

        Left out, because a trial's own weight would push those with a large one up.
        """
        order = np.argsort(ties, kind="stable")
        starts = np.flatnonzero(np.diff(ties[order], prepend=-1))
        of_ties = np.add.reduceat(mass[:, order], starts, axis=1)
        middle = np.cumsum(of_ties, axis=1) - of_ties / 2
        return np.asarray(middle[:, ties] - self.weights / 2)

    def _among_best(self, order: IntArray, mass: FloatArray, total: FloatArray) -> FloatArray:
        """The part of each trial that lies within the best share of all."""
        sorted_ = mass[:, order]
        better = total - np.cumsum(sorted_, axis=1)
        part = np.divide(self.share * total - better, sorted_, out=np.zeros_like(sorted_), where=sorted_ > 0)
        found = np.empty_like(mass)
        found[:, order] = np.clip(part, 0, 1)
        return found

    def _leads(self, order: IntArray, mass: FloatArray) -> FloatArray:
        """The probability of each trial to be the best of those that are drawn; NaN with fewer trials.

        A set of different trials is as probable as the product of their weights. So the probability is that
        of the trial with all sets of the others below it, of which `sets` sums the products.
        """
        sorted_ = mass[:, order]
        sets = np.ones_like(sorted_)
        for _ in range(self.drawn - 1):
            up_to = np.cumsum(sorted_ * sets, axis=1)
            sets = np.concatenate([np.zeros((len(mass), 1)), up_to[:, :-1]], axis=1)
        led = sorted_ * sets
        found = np.empty_like(mass)
        with np.errstate(invalid="ignore"):
            found[:, order] = led / led.sum(axis=1, keepdims=True)
        return found


def _interval(sample: _Sample, resamples: int, seed: int) -> FloatArray:
    """(2, 3): both ends of each statistic over the resamples in which it is defined."""
    generator, size = np.random.default_rng(seed), sample.weights.size
    drawn, left = [], resamples
    while left:
        some = min(left, max(1, _CELLS // size))
        counts = generator.multinomial(size, np.full(size, 1 / size), size=some).astype(np.float64)
        drawn.append(sample.statistics(counts))
        left -= some
    columns = [column[np.isfinite(column)] for column in np.concatenate(drawn).T]
    ends = [np.quantile(c, [0.025, 0.975]) if c.size else np.full(2, math.nan) for c in columns]
    return np.stack(ends, axis=1)


def _ascending(scores: FloatArray) -> IntArray:
    """The places of the scores, the worst first; of equal ones the last first."""
    return np.lexsort((-np.arange(scores.size), scores))


def _ties(scores: FloatArray) -> IntArray:
    """The place of each score among the different ones, the least first."""
    return np.unique(scores, return_inverse=True)[1]
