"""Bayesian optimisation with a Gaussian process."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from raykd.spec.samplers.base import SamplerSpec

if TYPE_CHECKING:
    from optuna.samplers import BaseSampler


class GP(SamplerSpec):
    """Gaussian process: for few, continuous axes and few trials. Learns from finished trials only."""

    name: Literal["gp"] = "gp"
    n_startup_trials: Annotated[int, Field(ge=1)] = Field(10, description="random configurations first")
    deterministic_objective: bool = Field(False, description="are scores free of noise")

    def make(self, seed: int) -> BaseSampler:
        """Optuna's GP sampler; an axis that does not take part in every trial is drawn at random."""
        from optuna.samplers import GPSampler, RandomSampler

        independent = RandomSampler(seed=seed)
        return GPSampler(
            **self.arguments, seed=seed, independent_sampler=independent, warn_independent_sampling=False
        )
