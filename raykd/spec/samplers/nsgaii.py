"""Genetic search by NSGA-II (Deb et al. 2002)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field

from raykd.spec.samplers.base import SamplerSpec

if TYPE_CHECKING:
    from optuna.samplers import BaseSampler


class NSGAII(SamplerSpec):
    """Genetic search: crossover and mutation of the best finished trials."""

    name: Literal["nsgaii"] = "nsgaii"
    population_size: Annotated[int, Field(ge=2)] = Field(50, description="trials of a generation")
    mutation_prob: Annotated[float, Field(ge=0, le=1)] | None = Field(None, description="default: 1 / axes")
    crossover_prob: Annotated[float, Field(ge=0, le=1)] = Field(0.9, description="of mixing two parents")
    swapping_prob: Annotated[float, Field(ge=0, le=1)] = Field(0.5, description="of an axis changing sides")

    def make(self, seed: int) -> BaseSampler:
        """Optuna's NSGA-II sampler."""
        from optuna.samplers import NSGAIISampler

        return NSGAIISampler(**self.arguments, seed=seed)

    @property
    def attrs_of_earlier(self) -> dict[str, Any]:
        """The first generation: it has as many members as there were finished trials, few or many."""
        from optuna.samplers import NSGAIISampler

        return {NSGAIISampler._get_generation_key(): 0}
