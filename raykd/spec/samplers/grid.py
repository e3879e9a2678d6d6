"""Every combination of the axes' values, in order."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field

from raykd.spec.samplers.base import SamplerSpec

if TYPE_CHECKING:
    from optuna.samplers import BaseSampler


class Grid(SamplerSpec):
    """Every combination, in order."""

    learns: ClassVar[bool] = False

    name: Literal["grid"] = "grid"
    levels: Annotated[int, Field(ge=1)] = Field(3, description="values taken from an axis that is no pick")

    def make(self, seed: int) -> BaseSampler:
        """For the axes that one of the sweep's `points` leaves open; the proposer visits the grid itself."""
        from optuna.samplers import RandomSampler

        return RandomSampler(seed=seed)
