"""Covariance matrix adaptation (Hansen 2016, arXiv 1604.00772)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field

from raykd.spec.samplers.base import SamplerSpec

if TYPE_CHECKING:
    from collections.abc import Sequence

    from optuna.samplers import BaseSampler
    from optuna.trial import FrozenTrial


class CMAES(SamplerSpec):
    """Covariance matrix adaptation: for continuous axes and many trials; picks are drawn at random."""

    weighs: ClassVar[bool] = False

    name: Literal["cmaes"] = "cmaes"
    n_startup_trials: Annotated[int, Field(ge=1)] = Field(1, description="random configurations first")
    popsize: Annotated[int, Field(ge=4)] | None = Field(
        None, description="trials of a generation; default: 4 + 3 ln(axes)"
    )
    consider_pruned_trials: bool = Field(True, description="learn from stopped trials by their last score")

    def make(self, seed: int) -> BaseSampler:
        """Optuna's CMA-ES sampler."""
        from optuna.samplers import CmaEsSampler

        return CmaEsSampler(**self.arguments, seed=seed, warn_independent_sampling=False)

    def make_after(self, seed: int, earlier: Sequence[FrozenTrial]) -> BaseSampler:
        """Optuna's sampler, its first distribution estimated from the best tenth of the earlier trials."""
        from raykd.spec.samplers.parts.warm_cmaes import WarmCMAES

        return WarmCMAES(earlier, **self.arguments, seed=seed, warn_independent_sampling=False)
