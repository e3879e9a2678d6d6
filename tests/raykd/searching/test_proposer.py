"""The proposer: every sampler on a conditional space, replay, repeats, replicates, points, grids."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from optuna.trial import TrialState
from proposing import Driver, play, score, states, sweep

from raykd.records.history import History
from raykd.searching.proposer import REPEATS_IN_A_ROW, Proposal, Proposer, Repeat, sampler_arguments
from raykd.spec.samplers import SAMPLERS
from tests.helpers.flat import unflatten
from trainables.training.resolve import resolve

torch.set_num_threads(1)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_each_sampler_proposes_on_a_conditional_space(sampler: str) -> None:
    spec = sweep(sampler)
    driver, proposer = play(spec)
    assert len(driver.done) == 30 and not proposer.running
    for proposal in driver.done:
        trial = spec.trial(proposal.params, proposal.replicate)
        assert (trial.signature(), trial.arm()) == (proposal.trial, proposal.arm)
        assert resolve(unflatten(proposal.config)) == trial
        assert ("gamma" in proposal.params) == (proposal.params["method"] == "retro")
        assert ("symmetric" in proposal.params) == (proposal.params.get("adapter") == "mlp")
        for name, value in proposal.params.items():
            assert spec.space.axes[name].contains(value)
    assert sorted(p.number for p in driver.done) == list(range(30))


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_a_replayed_proposer_goes_on_as_the_uninterrupted_one(sampler: str) -> None:
    driver = Driver(sweep(sampler, samples=10 if sampler == "gp" else 24))
    proposer, going = Proposer(driver.spec), True
    while going:
        resumed = driver.resumed()
        assert states(resumed) == states(proposer) and resumed.running == proposer.running
        written = len(driver.records)
        going = driver.step(proposer)
        suggested = [r for r in driver.records[written:] if r["kind"] == "suggest"]
        if suggested:
            again = resumed.propose()
            assert again is not None
            assert json.loads(json.dumps(again.record())) == {
                k: v for k, v in suggested[0].items() if k not in ("kind", "time")
            }


@given(
    st.sampled_from(["tpe", "random", "nsgaii"]), st.integers(0, 2**31), st.integers(1, 4), st.integers(0, 40)
)
@settings(max_examples=15)
def test_a_crash_at_any_moment_changes_no_proposal(sampler: str, seed: int, lanes: int, crash: int) -> None:
    spec = sweep(sampler, samples=10, seeds=[0, 1])
    whole, _ = play(spec, lanes=lanes, seed=seed)
    driver, proposer = Driver(spec, lanes, seed), Proposer(spec)
    for moves in range(200):
        if moves == crash:
            proposer = driver.resumed()
        if not driver.step(proposer):
            break
    assert driver.records == whole.records
    assert not proposer.running


def test_the_state_of_cma_es_travels_as_plain_json() -> None:
    driver, _ = play(sweep("cmaes", samples=20))
    kept = [r["attrs"] for r in driver.records if r["kind"] == "suggest"]
    assert any("cma:state" in attrs for attrs in kept)
    assert not any(key.startswith("cma:optimizer") for attrs in kept for key in attrs)


def test_the_same_seed_proposes_the_same_and_another_does_not() -> None:
    first, again = (play(sweep(samples=12))[0].done for _ in range(2))
    assert first == again
    other = play(sweep(samples=12, seed=1))[0].done
    assert {p.trial for p in other}.isdisjoint(p.trial for p in first)


def test_tpe_learns() -> None:
    spec = sweep(samples=60, axes={"lr": {"log": [1e-5, 10]}, "views.strength": {"uniform": [0, 1]}})
    proposer = Proposer(spec)
    found = []
    while (proposal := proposer.propose()) is not None:
        assert isinstance(proposal, Proposal)
        found.append(score(proposal.params, 0))
        proposer.report(proposal.trial, 1, found[-1])
        proposer.end(proposal.trial, "finished")
    assert sum(found[-20:]) / 20 > sum(found[:10]) / 10 + 3


# --- what Optuna is told ------------------------------------------------------------------------------------


def proposed(proposer: Proposer) -> Proposal:
    found = proposer.propose()
    assert isinstance(found, Proposal)
    return found


def told(reports: Iterable[float], status: str) -> Any:
    proposer = Proposer(sweep("random"))
    trial = proposed(proposer).trial
    for epoch, value in enumerate(reports, 1):
        proposer.report(trial, epoch, value)
    assert proposer.running == [0]
    proposer.end(trial, status)
    assert proposer.running == []
    return proposer.study.get_trials()[0]


def test_a_finished_trial_is_complete_with_its_best_score() -> None:
    trial = told([10, 30, math.nan, 20], "finished")
    assert (trial.state, trial.value) == (TrialState.COMPLETE, 30)


def test_a_stopped_trial_is_pruned_with_its_curve() -> None:
    trial = told([10, 30, 20], "stopped")
    assert trial.state == TrialState.PRUNED
    assert trial.intermediate_values == {1: 10, 2: 30, 3: 20}


def test_a_failed_trial_has_failed() -> None:
    assert told([10], "failed").state == TrialState.FAIL
    assert told([math.nan, math.inf], "finished").state == TrialState.FAIL
    assert told([], "finished").state == TrialState.FAIL
    assert told([], "stopped").state == TrialState.PRUNED


def test_the_first_report_of_an_epoch_and_the_first_end_count() -> None:
    proposer = Proposer(sweep("random"))
    trial = proposed(proposer).trial
    proposer.report(trial, 1, 5)
    proposer.report(trial, 1, 9)
    proposer.end(trial, "finished")
    proposer.report(trial, 2, 9)
    proposer.end(trial, "failed")
    frozen = proposer.study.get_trials()[0]
    assert (frozen.state, frozen.value) == (TrialState.COMPLETE, 5)


def test_the_study_maximises() -> None:
    assert Proposer(sweep()).study.direction.name == "MAXIMIZE"


def test_trials_in_flight_stay_in_flight_over_a_replay() -> None:
    driver = Driver(sweep(samples=6), lanes=3)
    proposer = Proposer(driver.spec)
    for _ in range(5):
        driver.step(proposer)
    resumed = driver.resumed()
    assert resumed.running == sorted(p.number for p in driver.live) != []
    for live in driver.live:
        resumed.end(live.trial, "finished")
    assert not resumed.running


# --- repeats, replicates, points, extensions ----------------------------------------------------------------


def test_a_repeat_costs_nothing_and_is_told_what_is_known() -> None:
    spec = sweep("random", samples=5, method="moco", axes={"head_dim": [32, 64]})
    proposer = Proposer(spec)
    trials, repeats = {}, []
    while (found := proposer.propose()) is not None:
        if isinstance(found, Repeat):
            repeats.append(found)
        else:
            trials[found.trial] = found
            if len(trials) == 1:
                proposer.report(found.trial, 1, 7.0)
                proposer.end(found.trial, "finished")
    assert len(trials) == 2 and proposer.exhausted
    assert [r.number for r in repeats][-REPEATS_IN_A_ROW:] == list(
        range(repeats[-1].number - REPEATS_IN_A_ROW + 1, repeats[-1].number + 1)
    )
    known, in_flight = trials.values()
    frozen = {t.number: t for t in proposer.study.get_trials()}
    for repeat in repeats:
        assert repeat.params == trials[str(repeat.trial)].params
        if repeat.trial == known.trial:
            assert (frozen[repeat.number].state, frozen[repeat.number].value) == (TrialState.COMPLETE, 7.0)
        else:
            assert frozen[repeat.number].state == TrialState.RUNNING
    proposer.report(in_flight.trial, 1, 3.0)
    proposer.end(in_flight.trial, "stopped")
    assert not proposer.running
    assert sum(t.state == TrialState.PRUNED for t in proposer.study.get_trials()) == 1 + sum(
        r.trial == in_flight.trial for r in repeats
    )


def test_repeats_are_replayed() -> None:
    spec = sweep(samples=4, method="moco", axes={"head_dim": [32, 64, 96, 128]})
    driver, proposer = play(spec)
    assert any(r["kind"] == "repeat" for r in driver.records) and len(driver.done) == 4
    assert states(driver.resumed()) == states(proposer)


def test_an_exhausted_space_stays_exhausted() -> None:
    spec = sweep("random", samples=9, method="moco", axes={"head_dim": [32, 64]})
    driver, proposer = play(spec)
    assert proposer.exhausted and len(driver.done) == 2
    resumed = driver.resumed()
    assert resumed.exhausted and resumed.propose() is None


def test_replicates_follow_their_configuration() -> None:
    driver, proposer = play(sweep("nsgaii", samples=5, seeds=[3, 1, 2]), lanes=2)
    suggested = [r for r in driver.records if r["kind"] == "suggest"]
    assert [r["replicate"] for r in suggested] == [3, 1, 2] * 5
    assert [r["origin"] for r in suggested] == ["sampler", "replicate", "replicate"] * 5
    for at in range(0, 15, 3):
        arms, params = ([r[key] for r in suggested[at : at + 3]] for key in ("arm", "params"))
        assert len(set(arms)) == 1 and params[0] == params[1] == params[2]
    assert len({r["trial"] for r in suggested}) == 15
    assert len(proposer.study.get_trials()) == 15


def test_points_come_first_and_may_be_partial() -> None:
    points = [
        {"method": "retro", "lr": 0.01, "adapter": "mlp", "symmetric": False},
        {"head_dim": 64},
        {"lr": 0.05},
    ]
    driver, _ = play(sweep(samples=5, points=points))
    suggested = [r for r in driver.records if r["kind"] == "suggest"]
    assert [r["origin"] for r in suggested] == ["point"] * 3 + ["sampler"] * 2
    for point, record in zip(points, suggested, strict=False):
        assert record["params"].items() >= point.items()
    assert suggested[1]["params"]["method"] == "moco"  # which head_dim belongs to


def test_points_are_not_tried_again_after_a_replay() -> None:
    spec = sweep(samples=5, points=[{"lr": 0.01}, {"lr": 0.02}, {"lr": 0.03}])
    driver, proposer = Driver(spec, lanes=9), Proposer(spec)
    driver.propose(proposer)
    driver.propose(proposer)
    following = proposed(driver.resumed())
    assert following.origin == "point" and following.params["lr"] == 0.03


def test_more_samples_can_be_asked_for() -> None:
    driver, proposer = play(sweep(samples=3))
    assert proposer.propose() is None and not proposer.exhausted
    extended = Proposer(driver.spec, samples=5)
    extended.replay(History.of(driver.records))
    while driver.step(extended):
        pass
    assert len(driver.done) == 5 and extended.propose() is None and not extended.exhausted


def test_a_configuration_that_cannot_be_trained_is_passed_over() -> None:
    # Only a spec that was not validated gets here: the upper half of the axis lies outside the field.
    spec = sweep("random", samples=6, method="moco", axes={"momentum": {"uniform": [0, 2]}})
    driver, proposer = play(spec)
    repeats = [r for r in driver.records if r["kind"] == "repeat"]
    assert repeats and all(r["trial"] is None and "axes.momentum" in r["reason"] for r in repeats)
    assert len(driver.done) == 6
    assert states(driver.resumed()) == states(proposer)


# --- grid and arguments -------------------------------------------------------------------------------------


def test_a_grid_covers_exactly() -> None:
    axes = {
        "gamma": {"log": [0.01, 1]},
        "adapter": ["linear", "mlp"],
        "symmetric": {"pick": [True, False], "when": {"adapter": "mlp"}},
        "head_dim": [32, 64],
    }
    spec = sweep("grid", samples=None, axes=axes)
    driver, proposer = play(spec)
    # retro: 2 gammas x (linear, mlp x 2); moco: 2 dimensions
    assert len(driver.done) == spec.samples == 2 * 3 + 2
    key = {json.dumps(p.params, sort_keys=True) for p in driver.done}
    assert key == {json.dumps(params, sort_keys=True) for params in spec.space.grid(2)}
    assert {p.origin for p in driver.done} == {"grid"}
    assert proposer.exhausted and proposer.propose() is None


def test_points_on_a_grid_are_not_run_twice() -> None:
    axes = {"adapter": ["linear", "mlp"], "gamma": [0.1, 1]}
    spec = sweep("grid", samples=None, method="retro", axes=axes, points=[{"adapter": "mlp", "gamma": 0.1}])
    driver, _ = play(spec)
    assert min(driver.done, key=lambda p: p.number).params == {
        "adapter": "mlp",
        "gamma": 0.1,
    }
    assert len(driver.done) == len({p.trial for p in driver.done}) == 4


def test_every_argument_is_recorded() -> None:
    assert sampler_arguments(sweep("random")) == {"seed": 0}
    assert sampler_arguments(sweep("tpe")) == {
        "seed": 0,
        "n_startup_trials": 3,
        "n_ei_candidates": 24,
        "multivariate": True,
        "group": True,
        "constant_liar": True,
        "max_kernels": 1000,
    }
