"""Tune's successive halving with the same verdicts, at a cost that does not grow with the trials."""

from __future__ import annotations

import math
from bisect import insort
from typing import Any

from ray.tune.schedulers import AsyncHyperBandScheduler
from ray.tune.schedulers.async_hyperband import _Bracket


class SteadyHalving(AsyncHyperBandScheduler):
    """`AsyncHyperBandScheduler` of one bracket.

    Tune computes the quantile of all scores of a rung anew for each trial that reaches it. Here the scores of
    a rung are kept sorted.
    """

    def __init__(self, *, grace_period: int, max_t: int, reduction_factor: float, **settings: Any) -> None:
        """`settings` are the others of Tune's scheduler, without `brackets`."""
        super().__init__(
            grace_period=grace_period, max_t=max_t, reduction_factor=reduction_factor, **settings
        )
        self._brackets = [_SteadyBracket(grace_period, max_t, reduction_factor, s=0)]


class _SteadyBracket(_Bracket):
    """One bracket whose rungs keep their scores sorted."""

    def __init__(self, min_t: int, max_t: int, reduction_factor: float, s: int) -> None:
        super().__init__(min_t, max_t, reduction_factor, s)
        self._rungs = [(milestone, _Recorded()) for milestone, _ in self._rungs]
        self._share = (1 - 1 / self.rf) * 100 / 100  # as `numpy.nanpercentile` rounds it

    def cutoff(self, recorded: _Recorded) -> Any:
        """The score that a trial must reach to go on; None before the first one."""
        if not recorded.plain:
            return super().cutoff(recorded)
        return _quantile(recorded.ordered, self._share) if recorded else None


class _Recorded(dict[str, float]):
    """Trial -> its score at a rung, and the scores in order."""

    def __init__(self) -> None:
        super().__init__()
        self.ordered: list[float] = []
        self.plain = True  # whether `ordered` says it all: each trial came once, and with a finite score

    def __setitem__(self, trial: str, score: float) -> None:
        self.plain = self.plain and trial not in self and math.isfinite(score)
        super().__setitem__(trial, score)
        if self.plain:
            insort(self.ordered, float(score))


def _quantile(ordered: list[float], share: float) -> float:
    """The quantile of sorted numbers, to the last bit as `numpy.quantile` interpolates it linearly."""
    at = (len(ordered) - 1) * share
    before = math.floor(at) if at < len(ordered) - 1 else -1
    low, high = ordered[before], ordered[before + 1 if before >= 0 else -1]
    part = at - before
    return low + (high - low) * part if part < 0.5 else high - (high - low) * (1 - part)
