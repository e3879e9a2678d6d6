"""The sampler that reads each trial once proposes what Optuna's own does, to the last bit."""

from __future__ import annotations

import functools
import random
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import optuna
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from optuna.distributions import CategoricalDistribution, FloatDistribution
from optuna.samplers import TPESampler
from optuna.samplers._tpe.parzen_estimator import _ParzenEstimator, _ParzenEstimatorParameters
from optuna.samplers._tpe.sampler import default_weights
from optuna.trial import TrialState

from raykd.searching.optuna_state import End, StudyState
from raykd.spec.samplers.parts import steady_tpe
from raykd.spec.samplers.parts.parzen import Parzen
from raykd.spec.samplers.parts.steady_tpe import SteadyTPE, make_tpe


def suggest(trial: Any) -> dict[str, Any]:
    """Axes of all kinds, some of which only part of the trials have."""
    found = {
        "lr": trial.suggest_float("lr", 1e-4, 1e-1, log=True),
        "optimizer": trial.suggest_categorical("optimizer", ["sgd", "adamw", "lamb"]),
        "strength": trial.suggest_float("strength", 0, 1),
    }
    if found["optimizer"] == "sgd":
        found["momentum"] = trial.suggest_float("momentum", 0.5, 0.99)
        found["nesterov"] = trial.suggest_categorical("nesterov", [True, False])
    elif found["strength"] > 0.5:
        found["width"] = trial.suggest_int("width", 8, 512, log=True)
    return found


def play(
    kind: Callable[..., TPESampler], dice: random.Random, trials: int, lanes: int, **arguments: Any
) -> list[Any]:
    """The proposals of a sweep whose trials end in random order, in every way that trials end."""
    state, live, proposed = StudyState(), [], []
    while len(proposed) < trials:
        while len(live) < lanes:
            sampler = kind(**arguments, n_startup_trials=5, seed=len(proposed))
            proposed.append(state.ask(sampler, {"strength": 0.25} if len(proposed) == 7 else {}, suggest))
            live.append(state.size - 1)
        number = live.pop(dice.randrange(len(live)))
        scores = {epoch: round(dice.gauss(0, 1), 1) for epoch in range(1, dice.randint(2, 6))}
        how = dice.choice(["finished", "stopped", "stopped", "silent", "failed", "refused", "over"])
        if how == "refused":
            state.tell(number, End(TrialState.PRUNED, over={"params": round(dice.random(), 1)}))
        elif how == "over":
            value, over = max(scores.values()), {"params": 0.0, "macs": round(dice.random() - 0.5, 1)}
            state.tell(number, End(TrialState.COMPLETE, scores, value, over=over))
        elif how == "finished":
            state.tell(number, End(TrialState.COMPLETE, scores, max(scores.values())))
        elif how == "failed":
            state.tell(number, End(TrialState.FAIL))
        else:
            state.tell(number, End(TrialState.PRUNED, scores if how == "stopped" else {}))
    return proposed


@settings(max_examples=12, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    lanes=st.integers(1, 5),
    together=st.sampled_from([(True, True), (True, False), (False, False)]),
    liar=st.booleans(),
)
def test_it_proposes_what_optuna_s_own_sampler_proposes(
    seed: int, lanes: int, together: tuple[bool, bool], liar: bool
) -> None:
    multivariate, group = together
    arguments = {"multivariate": multivariate, "group": group, "constant_liar": liar}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        theirs, ours = (
            play(kind, random.Random(seed), 40, lanes, **arguments)
            for kind in (TPESampler, functools.partial(SteadyTPE, 100))
        )
    assert ours == theirs


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), count=st.integers(0, 400))
def test_densities_are_optuna_s_to_the_last_bit(seed: int, count: int) -> None:
    rng = np.random.default_rng(seed)
    space = {
        "lr": FloatDistribution(1e-4, 1e-1, log=True),
        "a": FloatDistribution(0, 1),
        "b": FloatDistribution(-5, 5),
        "pick": CategoricalDistribution(["x", "y", "z"]),
        "step": FloatDistribution(0, 1, step=0.25) if seed % 3 == 0 else FloatDistribution(2, 3),
    }
    seen = {
        "lr": 10 ** rng.uniform(-4, -1, count),
        "a": rng.choice([0.0, 0.5, 1.0, 0.25], count),  # at the ends, too
        "b": rng.uniform(-5, 5, count),
        "pick": rng.integers(0, 3, count).astype(float),
        "step": rng.choice([0.0, 0.25, 1.0], count) if seed % 3 == 0 else rng.uniform(2, 3, count),
    }
    settings = _ParzenEstimatorParameters(1.0, True, False, default_weights, True)
    theirs, ours = (kind(seen, space, settings) for kind in (_ParzenEstimator, Parzen))
    candidates = theirs.sample(np.random.RandomState(seed), 24)
    assert np.array_equal(theirs.log_pdf(candidates), ours.log_pdf(candidates))


def test_of_many_trials_a_fixed_sample_counts_with_the_best_and_those_in_flight(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen: list[np.ndarray] = []  # strengths of the trials that each density was made from

    class Watched(Parzen):
        def __init__(self, observed: Any, *more: Any) -> None:
            super().__init__(observed, *more)
            if "strength" in observed:
                seen.append(observed["strength"])

    monkeypatch.setattr(steady_tpe, "Parzen", Watched)
    state = StudyState()
    strengths = np.random.default_rng(0).permutation(400) / 400
    for number, strength in enumerate(strengths):
        values, axes = {"strength": strength}, {"strength": FloatDistribution(0, 1)}
        running = number in (3, 200)
        state.place(values, axes, end=None if running else End(TrialState.COMPLETE, {1: strength}, strength))
    for _ in range(2):
        state.ask(SteadyTPE(150, seed=0), {}, lambda trial: {"s": trial.suggest_float("strength", 0, 1)})
        state.tell(state.size - 1, End(TrialState.FAIL))
    best, others, best_again, others_again = seen
    assert sorted(best) == sorted(s for n, s in enumerate(strengths) if n not in (3, 200))[-25:]
    assert len(others) == 150 and {strengths[3], strengths[200]} <= set(others)
    assert not set(best) & set(others) and np.array_equal(best, best_again)
    assert np.array_equal(others, others_again), "the sample does not change from proposal to proposal"
    assert abs(np.mean(others) - np.mean(strengths[strengths <= best.min()])) < 0.08, "a random one"


def test_another_version_of_optuna_proposes_by_its_own_code(monkeypatch: pytest.MonkeyPatch) -> None:
    assert type(make_tpe(1000, seed=0)) is SteadyTPE, "this version is a known one"
    monkeypatch.setattr(optuna, "__version__", "77.1.0")
    assert type(make_tpe(1000, seed=0)) is TPESampler
