"""Percentile bootstrap intervals for a statistic without a formula, such as the importances of parameters."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from raykd.stats.paired import FloatArray, IntArray


class Bootstrap(NamedTuple):
    """The statistic of the sample and the ends of its interval, each of the statistic's own shape."""

    value: FloatArray
    low: FloatArray
    high: FloatArray
    resamples: int  # those in which the statistic is defined


def bootstrap(
    statistic: Callable[[IntArray], ArrayLike],
    size: int,
    *,
    resamples: int = 200,
    alpha: float = 0.05,
    seed: int = 0,
) -> Bootstrap:
    """The statistic of a sample of `size` and its (1 - alpha) percentile interval (Efron 1979).

    `statistic` takes the indices of a resample (size,), with repeats, and returns a number or an array, such
    as one importance a parameter. The same seed gives the same interval. A resample may leave the statistic
    undefined (NaN, or a ValueError: a parameter did not vary in it). Such a resample is left out, and
    `resamples` counts the rest. The ends are NaN where none is left. Below some tens of trials the interval
    is too short.
    """
    generator = np.random.default_rng(seed)
    value = np.asarray(statistic(np.arange(size)), dtype=np.float64)
    drawn = []
    for _ in range(resamples):
        try:
            found = np.asarray(statistic(generator.integers(size, size=size)), dtype=np.float64)
        except ValueError:
            continue
        if np.isfinite(found).all():
            drawn.append(found)
    if not drawn:
        nothing = np.full_like(value, np.nan)
        return Bootstrap(value, nothing, nothing, 0)
    low, high = np.quantile(np.stack(drawn), [alpha / 2, 1 - alpha / 2], axis=0)
    return Bootstrap(value, low, high, len(drawn))
