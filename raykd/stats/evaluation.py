"""Scores on test images: intervals over training runs and images together, and paired differences.

A network that was trained with R seeds is tested on the same N images R times, so runs and images are
crossed. An interval over the runs alone says nothing of other images, and one over the images alone nothing
of another training. With the outcome h_ri of run r on image i, and weights w_i that sum to 1 (1 / N for an
accuracy), the score of a run is sum_i w_i h_ri. The variance of the mean over the runs has three parts:

    runs       s^2 of the scores of the runs / R
    images     sum_i w_i^2 (h_.i - its stratum's mean)^2 n / (n - 1)
    both       sum_i w_i^2 s^2_i / R, of what is left of h_ri; the two parts above hold it once each

    half of the interval = sqrt(t_{R-1}^2 runs + t_{N-1}^2 max(0, images - both))

This is the analysis of variance of crossed random effects (Cornfield and Tukey 1956), as readers and cases
are analysed in diagnostic imaging (Gallas 2006). Each part has the t quantile of its own degrees of freedom
(Cochran and Cox 1957). One quantile of Satterthwaite's degrees of freedom would call 8 % of equal recipes
different with three runs and three tasks, and the bootstrap over runs and images covers 83 % instead of 95 %
where runs differ more than images do: of three runs drawn with repeats the spread is a third too small.
`tests/raykd/stats/test_evaluation_stats.py` measures coverage and error rate.

All scores, differences and intervals are in percent.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy import optimize, stats

from raykd.stats.comparison import holm
from raykd.stats.paired import FloatArray, IntArray, Interval

_UNKNOWN = Interval(math.nan, math.nan)


class Runs(NamedTuple):
    """What is known of one network, or of one recipe with several seeds, on one task.

    `scores` (R,) in percent, one a run. `hits` (R, N) is what became of each image, from 0 to 1, in one order
    of the images for all runs; None where a score is no mean over images. `labels` (N,) are given where the
    score is the mean over the classes. `seeds` (R,) are those of the training; None for a single network, of
    which each run is one with another seed of the task.
    """

    scores: FloatArray
    hits: FloatArray | None = None
    labels: IntArray | None = None
    seeds: tuple[int, ...] | None = None


class Difference(NamedTuple):
    """A difference of two scores, points; its interval alone, its p value, and Holm's for the family."""

    mean: float
    interval: Interval
    p: float
    p_holm: float
    pairs: int  # of runs
    over: str  # what the interval is over: `runs and images`, `runs`, `images`, or "" where there is none


def wilson(share: float, images: int, alpha: float = 0.05) -> Interval:
    """Wilson's score interval (1927) of a share (0 to 1) of `images`, in percent."""
    z = float(stats.norm.isf(alpha / 2))
    centre = (share + z * z / (2 * images)) / (1 + z * z / images)
    half = z / (1 + z * z / images) * math.sqrt(share * (1 - share) / images + (z / (2 * images)) ** 2)
    return Interval(100 * max(0.0, centre - half), 100 * min(1.0, centre + half))


def score_interval(tested: Runs, alpha: float = 0.05) -> tuple[Interval, str]:
    """The (1 - alpha) interval of the mean score, and what it is over.

    Several runs with outcomes: over `runs and images`. Without outcomes: over `runs`, Student's t. One run:
    over `images`, Wilson's for an accuracy, else Student's t within classes. NaN where nothing is known.
    """
    scores, runs, hits = tested.scores, len(tested.scores), tested.hits
    mean = float(np.mean(scores)) if runs else math.nan
    over = "runs and images" if runs > 1 else "images"
    if hits is not None and runs:
        parts = _crossed(hits, tested.labels)
        # Wilson's, too, where every image is right in every run, or none is.
        if (runs == 1 and tested.labels is None) or not parts.known:
            return wilson(mean / 100, hits.shape[1], alpha), over
        return _clipped(mean, parts.half_width(alpha)), over
    if runs > 1:
        return _clipped(mean, _of_runs(scores).half_width(alpha)), "runs"
    return _UNKNOWN, ""


def differences(pairs: Sequence[tuple[Runs, Runs]], alpha: float = 0.05) -> list[Difference]:
    """Each first side minus its second one. All pairs are one family: Holm's p values are over all of them.

    Runs with the same training seed are paired, and all on the same images. A side without seeds is one
    network, with which every run of the other side is compared; the interval then says nothing of another
    network in its place. Two single networks are compared over the images alone, by McNemar's exact test
    where the score is an accuracy. NaN where a difference has no interval.
    """
    found = [_difference(one, other, alpha) for one, other in pairs]
    adjusted = holm([each.p for each in found])
    return [each._replace(p_holm=float(p)) for each, p in zip(found, adjusted, strict=True)]


def _difference(one: Runs, other: Runs, alpha: float) -> Difference:
    if (one.seeds is None) != (other.seeds is None):
        one, other = _single(one), _single(other)
    mine, theirs = _paired(one, other)
    scores = one.scores[mine] - other.scores[theirs]
    runs = len(scores)
    mean = float(scores.mean()) if runs else math.nan
    nothing = Difference(mean, _UNKNOWN, math.nan, math.nan, runs, "")
    if not runs:
        return nothing
    if one.hits is not None and other.hits is not None and one.hits.shape[1] == other.hits.shape[1]:
        outcomes = one.hits[mine] - other.hits[theirs]
        labels = (
            one.labels if one.labels is not None else other.labels
        )  # where all are right, both means agree
        if runs == 1 and labels is None and set(np.unique(outcomes)) <= {-1.0, 0.0, 1.0}:
            return _of_two_networks(mean, outcomes[0], alpha)
        parts = _crossed(outcomes, labels)
        over = "runs and images" if runs > 1 else "images"
    elif runs > 1:
        parts, over = _of_runs(scores), "runs"
    else:
        return nothing
    if not parts.known:  # no pair of outcomes differs from another one: nothing to judge the difference by
        return nothing if mean else nothing._replace(p=1.0)
    half = parts.half_width(alpha)
    return Difference(mean, Interval(mean - half, mean + half), parts.p(mean), math.nan, runs, over)


def _of_two_networks(mean: float, outcomes: FloatArray, alpha: float) -> Difference:
    """McNemar's exact test (1947) and Bonett and Price's interval (2012, adjusted Wald)."""
    won, lost, images = int((outcomes > 0).sum()), int((outcomes < 0).sum()), len(outcomes)
    p = float(stats.binomtest(won, won + lost).pvalue) if won + lost else 1.0
    up, down, z = (won + 1) / (images + 2), (lost + 1) / (images + 2), float(stats.norm.isf(alpha / 2))
    half = z * math.sqrt((up + down - (up - down) ** 2) / (images + 2))
    interval = Interval(100 * (up - down - half), 100 * (up - down + half))
    return Difference(mean, interval, p, math.nan, 1, "images")


def _paired(one: Runs, other: Runs) -> tuple[list[int], list[int]]:
    """Indices of the runs of each side that make pairs."""
    if one.seeds is None or other.seeds is None:
        runs = max(len(one.scores), len(other.scores))
        sides = [
            [at % len(side.scores) for at in range(runs)] if len(side.scores) else [] for side in (one, other)
        ]
        return (sides[0], sides[1]) if all(sides) else ([], [])
    both = [seed for seed in one.seeds if seed in other.seeds]
    return [one.seeds.index(seed) for seed in both], [other.seeds.index(seed) for seed in both]


def _single(tested: Runs) -> Runs:
    """A network without seeds as one run: the mean of its runs."""
    if tested.seeds is not None or len(tested.scores) < 2:
        return tested
    hits = None if tested.hits is None else tested.hits.mean(axis=0, keepdims=True)
    return tested._replace(scores=tested.scores.mean(keepdims=True), hits=hits)


def _clipped(mean: float, half: float) -> Interval:
    return Interval(max(0.0, mean - half), min(100.0, mean + half))


class _Parts(NamedTuple):
    """The parts of a mean's variance, in percent squared, and the degrees of freedom of each."""

    runs: float
    freedom_runs: int
    images: float = 0.0  # less what it shares with `runs`
    freedom_images: int = 1

    @property
    def known(self) -> bool:
        """Whether anything varies."""
        return self.runs > 0 or self.images > 0

    def half_width(self, alpha: float) -> float:
        """Half of the (1 - alpha) interval of the mean."""
        found = 0.0
        for variance, freedom in ((self.runs, self.freedom_runs), (self.images, self.freedom_images)):
            if variance > 0:
                found += float(stats.t.isf(alpha / 2, freedom)) ** 2 * variance
        return math.sqrt(found)

    def p(self, mean: float) -> float:
        """The two-sided p value of a mean of 0: the alpha whose interval ends there."""
        least = 1e-12
        if self.half_width(least) <= abs(mean):
            return least
        # At 1 the interval is a point.
        return float(
            optimize.brentq(lambda alpha: self.half_width(alpha) - abs(mean), least, 1.0, xtol=1e-15)
        )


def _of_runs(scores: FloatArray) -> _Parts:
    """Of scores (R,) alone. Equal ones differ in the last bits of a float, which is no spread."""
    sd = float(np.std(scores, ddof=1))
    return _Parts(0.0 if sd < 1e-9 else sd**2 / len(scores), len(scores) - 1)


def _crossed(outcomes: FloatArray, labels: IntArray | None) -> _Parts:
    """Of outcomes (R, N). With `labels` the mean is over the images of each class, then over the classes.

    The classes are then the strata of the images.
    """
    h = 100 * np.asarray(outcomes, dtype=np.float64)
    runs, images = h.shape
    strata = np.zeros(images, dtype=np.int64) if labels is None else np.unique(labels, return_inverse=True)[1]
    sizes = np.bincount(strata)
    weight = 1 / (len(sizes) * sizes[strata])
    more = (sizes / np.maximum(sizes - 1, 1))[strata]  # a class of one image shows no spread
    by_image = h.mean(axis=0)
    of_images = float((weight**2 * (by_image - _means(by_image, strata, sizes)) ** 2 * more).sum())
    freedom = max(1, images - len(sizes))
    if runs == 1:
        return _Parts(0.0, 1, of_images, freedom)
    of_runs = _of_runs(h @ weight)
    left = h - by_image
    left -= np.stack([_means(row, strata, sizes) for row in left])
    of_both = float((weight**2 * (left**2).sum(axis=0) * more).sum()) / (runs - 1) / runs
    return _Parts(of_runs.runs, runs - 1, max(0.0, of_images - of_both), freedom)


def _means(values: FloatArray, strata: IntArray, sizes: IntArray) -> FloatArray:
    """The mean of each value's stratum, (N,)."""
    return np.asarray((np.bincount(strata, values) / sizes)[strata])
