"""Optuna's importance evaluators for plain observations: configurations of a space with their scores."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.importance import (
    BaseImportanceEvaluator,
    MeanDecreaseImpurityImportanceEvaluator,
    PedAnovaImportanceEvaluator,
    get_param_importances,
)
from optuna.trial import FrozenTrial, create_trial

from raykd.searching.fanova import main_effects
from raykd.searching.optuna_state import StudyState
from raykd.spec.space import Space
from raykd.stats.paired import FloatArray

EVALUATORS = {
    "fanova": "variance that an axis explains by itself",
    "pedanova": "what sets the best tenth apart",
    "mdi": "what a forest splits on",
}
FEWEST = 5  # minimum number of observations for an evaluator
TREES = 64  # Optuna's default


@dataclass(frozen=True)
class Observation:
    """A configuration and its score."""

    params: dict[str, Any]  # active axis -> value
    score: float


class Fanova(NamedTuple):
    """The evaluator "fanova": a forest of so many trees, grown from this seed."""

    trees: int
    seed: int


def make_evaluator(name: str, trees: int, observations: int, seed: int) -> BaseImportanceEvaluator | Fanova:
    """One of `EVALUATORS`. All arguments that matter are explicit, because Optuna's defaults change.

    `trees` is the size of a forest, `observations` the number of observations.
    """
    if name == "fanova":
        return Fanova(trees, seed)
    if name == "mdi":
        return MeanDecreaseImpurityImportanceEvaluator(n_trees=trees, seed=seed)
    best = min(0.5, max(0.1, FEWEST / observations))  # Optuna needs at least five best observations
    return PedAnovaImportanceEvaluator(target_quantile=best)


def shares_of(
    evaluator: BaseImportanceEvaluator | Fanova, trials: Sequence[FrozenTrial], names: Sequence[str]
) -> FloatArray:
    """(axes,) the share of each axis in the sum of importances; all NaN if they cannot be computed."""
    nothing = np.full(len(names), np.nan)
    if isinstance(evaluator, Fanova):
        return _normalised(_main_effects(evaluator, trials, names))
    study = StudyState().study
    study.add_trials(trials)
    # Sorted, because Optuna's MDI (5.0.0) sorts the axes but labels its results in the order of `params`.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # if all scores are equal; then the result is NaN
        try:
            found = get_param_importances(study, evaluator=evaluator, params=sorted(names), normalize=False)
        except (RuntimeError, ValueError):  # a forest without variance, or an axis without a value
            return nothing
    return _normalised(np.array([found[name] for name in names], dtype=np.float64))


def _main_effects(evaluator: Fanova, trials: Sequence[FrozenTrial], names: Sequence[str]) -> FloatArray:
    """(axes,) as of `fanova.main_effects`. The forest has the axes in the order of their names."""
    ordered, axes = sorted(names), trials[0].distributions
    places = np.array([[trial.params[name] for name in ordered] for trial in trials], dtype=np.float64)
    bounds = np.array([[axes[name].low, axes[name].high] for name in ordered], dtype=np.float64)  # type: ignore[attr-defined]
    scores = np.array([trial.value for trial in trials], dtype=np.float64)
    found = main_effects(places, scores, bounds, *evaluator)
    return found[[ordered.index(name) for name in names]]


def _normalised(values: FloatArray) -> FloatArray:
    """The values as shares of their sum; all NaN where that is not possible."""
    total = values.sum()
    return values / total if np.isfinite(total) and total > 0 else np.full(len(values), np.nan)


def freeze(space: Space, names: Sequence[str], seen: Observation, evaluator: str) -> FrozenTrial:
    """An observation as a complete Optuna trial, with axes that the evaluator weighs evenly.

    Optuna's fANOVA weighs an axis evenly by value: for lr in [1e-4, 1e-1] the last decade would count 90 %.
    So a logarithmic axis is passed as its logarithm. fANOVA also makes a column for each level of a
    categorical axis and computes 2^levels marginals (20 methods: minutes and gigabytes), most of them for
    levels that exclude each other. So the forests get the position of the level, each with a width of 1.
    """
    params, distributions = space.encode({n: seen.params[n] for n in names if n in seen.params})
    for name, distribution in distributions.items():
        if isinstance(distribution, CategoricalDistribution):
            if evaluator != "pedanova":
                params[name] = float(distribution.choices.index(params[name]))
                distributions[name] = FloatDistribution(-0.5, len(distribution.choices) - 0.5)
        elif isinstance(distribution, FloatDistribution | IntDistribution) and distribution.log:
            low, high = math.log(distribution.low), math.log(distribution.high)
            distributions[name] = FloatDistribution(low, high)
            params[name] = min(max(math.log(params[name]), low), high)
    return create_trial(params=params, distributions=distributions, value=seen.score)


def predicted(space: Space, names: Sequence[str], seen: Sequence[Observation], seed: int) -> float:
    """R² of a forest's out-of-bag predictions: 1 is perfect, 0 is no better than the mean score."""
    from sklearn.ensemble import RandomForestRegressor

    columns: list[list[float]] = []
    for name in names:
        distribution = space.axes[name].distribution()
        values = [space.axes[name].encode(o.params[name]) if name in o.params else None for o in seen]
        if isinstance(distribution, CategoricalDistribution):
            columns += [[float(value == level) for value in values] for level in distribution.choices]
        else:
            columns.append([math.nan if value is None else float(value) for value in values])
    forest = RandomForestRegressor(n_estimators=4 * TREES, oob_score=True, random_state=seed)
    return float(forest.fit(np.array(columns).T, [o.score for o in seen]).oob_score_)
