"""Asynchronous successive halving (Li et al. 2020, arXiv 1810.05934), in one bracket or in several."""

from __future__ import annotations

from abc import ABC
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from raykd.spec.schedulers.base import JUDGED, StoppingScheduler, milestones, shares_at

if TYPE_CHECKING:
    from ray.tune.schedulers import TrialScheduler


class Halving(StoppingScheduler, ABC):
    """Compares trials at rungs, each `factor` times as many epochs as the one before."""

    factor: Annotated[float, Field(gt=1)] = Field(2.0, description="one trial in so many goes on")

    def rungs(self, epochs: int) -> list[int]:
        """The rungs before the last epoch."""
        return milestones(self.grace, self.factor, epochs)

    def stops(self, epochs: int) -> list[tuple[int, float]]:
        """(rung, share of all trials that are stopped there)."""
        return shares_at(self.rungs(epochs), self.factor)

    def brackets_from(self, graces: list[int], epochs: int) -> list[TrialScheduler]:
        """One bracket for each first rung that lies within the training."""
        from raykd.spec.schedulers.parts.steady_halving import SteadyHalving

        common = {**JUDGED, "max_t": epochs, "reduction_factor": self.factor}
        return [SteadyHalving(grace_period=grace, **common) for grace in graces if grace <= epochs]


class Asha(Halving):
    """One bracket of successive halving."""

    name: Literal["asha"] = "asha"

    def make(self, epochs: int) -> list[TrialScheduler]:
        """One of Tune's schedulers."""
        return self.brackets_from([self.grace], epochs)


class Hyperband(Halving):
    """Several brackets of successive halving, each with a later first rung. Trials take them in turn."""

    name: Literal["hyperband"] = "hyperband"
    brackets: Annotated[int, Field(ge=1)] = Field(3, description="brackets; each starts `factor` later")

    def make(self, epochs: int) -> list[TrialScheduler]:
        """One of Tune's schedulers a bracket."""
        return self.brackets_from(self._graces(), epochs)

    def stops(self, epochs: int) -> list[tuple[int, float]]:
        """(rung, share of all trials that are stopped there), each bracket with its part of the trials."""
        graces = [grace for grace in self._graces() if grace <= epochs]
        found: dict[int, float] = {}
        for grace in graces:
            for rung, share in shares_at(milestones(grace, self.factor, epochs), self.factor):
                found[rung] = found.get(rung, 0.0) + share / len(graces)
        return sorted(found.items())

    def _graces(self) -> list[int]:
        return [int(self.grace * self.factor**bracket) for bracket in range(self.brackets)]
