"""What can propose configurations, and with which arguments.

All explicit: nothing is left to Optuna's defaults, which change between versions. A sweep writes them down.
`search/proposer.py` makes the Optuna samplers from these.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, SerializeAsAny, model_validator

from trainables.core.errors import UserError
from trainables.spec.parse import as_mapping, build
from trainables.spec.trial import Seed, Spec


class SamplerSpec(Spec):
    """What proposes configurations. The same seed and the same results give the same proposals."""

    name: str
    seed: Seed = Field(0, description="seed of all proposals")


class TPE(SamplerSpec):
    """Tree-structured Parzen estimator: fits conditional spaces and trials that were stopped early."""

    name: Literal["tpe"] = "tpe"
    n_startup_trials: Annotated[int, Field(ge=1)] = Field(10, description="random configurations first")
    n_ei_candidates: Annotated[int, Field(ge=1)] = Field(24, description="candidates weighed for a proposal")
    multivariate: bool = Field(True, description="model axes together")
    group: bool = Field(True, description="model each set of axes that occurs together (conditional spaces)")
    constant_liar: bool = Field(True, description="keep away from trials in flight")

    @model_validator(mode="after")
    def _possible(self) -> TPE:
        if self.group and not self.multivariate:
            raise UserError("group", "needs multivariate", value=True, expected="`group: false`, or both")
        return self


class Random(SamplerSpec):
    """Independent random configurations."""

    name: Literal["random"] = "random"


class GP(SamplerSpec):
    """Gaussian process: for few, continuous axes and few trials. Learns from finished trials only."""

    name: Literal["gp"] = "gp"
    n_startup_trials: Annotated[int, Field(ge=1)] = Field(10, description="random configurations first")
    deterministic_objective: bool = Field(False, description="are scores free of noise")


class CMAES(SamplerSpec):
    """Covariance matrix adaptation: for continuous axes and many trials; picks are drawn at random."""

    name: Literal["cmaes"] = "cmaes"
    n_startup_trials: Annotated[int, Field(ge=1)] = Field(1, description="random configurations first")
    popsize: Annotated[int, Field(ge=4)] | None = Field(
        None, description="trials of a generation; default: 4 + 3 ln(axes)"
    )
    consider_pruned_trials: bool = Field(True, description="learn from stopped trials by their last score")


class NSGAII(SamplerSpec):
    """Genetic search: crossover and mutation of the best finished trials."""

    name: Literal["nsgaii"] = "nsgaii"
    population_size: Annotated[int, Field(ge=2)] = Field(50, description="trials of a generation")
    mutation_prob: Annotated[float, Field(ge=0, le=1)] | None = Field(None, description="default: 1 / axes")
    crossover_prob: Annotated[float, Field(ge=0, le=1)] = Field(0.9, description="of mixing two parents")
    swapping_prob: Annotated[float, Field(ge=0, le=1)] = Field(0.5, description="of an axis changing sides")


class Grid(SamplerSpec):
    """Every combination, in order."""

    name: Literal["grid"] = "grid"
    levels: Annotated[int, Field(ge=1)] = Field(3, description="values taken from an axis that is no pick")


SAMPLERS: dict[str, type[SamplerSpec]] = {
    "tpe": TPE,
    "random": Random,
    "gp": GP,
    "cmaes": CMAES,
    "nsgaii": NSGAII,
    "grid": Grid,
}


def parse_sampler(raw: Any) -> SamplerSpec:
    """The sampler that `{name: tpe, …}` describes."""
    if isinstance(raw, SamplerSpec):
        return raw
    mapping = as_mapping(raw, "")
    name = mapping.get("name", "tpe")
    if not isinstance(name, str) or name not in SAMPLERS:
        raise UserError("name", "no such sampler", value=name, choices=SAMPLERS)
    return build(SAMPLERS[name], {**mapping, "name": name})


AnySampler = Annotated[SerializeAsAny[SamplerSpec], BeforeValidator(parse_sampler)]
