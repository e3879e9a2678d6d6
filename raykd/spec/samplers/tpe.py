"""The tree-structured Parzen estimator (Bergstra et al. 2011; Watanabe 2023, arXiv 2304.11127)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field, model_validator

from raykd.spec.samplers.base import SamplerSpec
from trainables.core.errors import UserError

if TYPE_CHECKING:
    from optuna.samplers import BaseSampler


class TPE(SamplerSpec):
    """Tree-structured Parzen estimator: for conditional spaces, and learns from trials that were stopped."""

    learns_limits: ClassVar[bool] = True

    name: Literal["tpe"] = "tpe"
    n_startup_trials: Annotated[int, Field(ge=1)] = Field(10, description="random configurations first")
    n_ei_candidates: Annotated[int, Field(ge=1)] = Field(24, description="candidates weighed for a proposal")
    multivariate: bool = Field(True, description="model axes together")
    group: bool = Field(True, description="model each set of axes that occurs together (conditional spaces)")
    constant_liar: bool = Field(True, description="keep away from trials in flight")
    max_kernels: Annotated[int, Field(ge=100)] = Field(
        1000,
        description="trials, beside the best, that a proposal is computed from; of more than these, a fixed "
        "random sample, so that proposals of a long search do not get slower",
    )

    @model_validator(mode="after")
    def _possible(self) -> TPE:
        if self.group and not self.multivariate:
            raise UserError("group", "needs multivariate", value=True, expected="`group: false`, or both")
        return self

    def make(self, seed: int) -> BaseSampler:
        """Optuna's TPE sampler."""
        from raykd.spec.samplers.parts.steady_tpe import make_tpe

        return make_tpe(**self.arguments, seed=seed)
