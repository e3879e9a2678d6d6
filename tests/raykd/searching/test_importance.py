"""Importances of sweeps whose scores are a known function of the axes, by way of the ledger."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import optuna
import pytest
from command import raykd
from histories import EPOCHS, a_sweep
from hypothesis import given, settings
from hypothesis import strategies as st
from ledger_records import end, record, report, start
from optuna.distributions import FloatDistribution
from optuna.importance import FanovaImportanceEvaluator

from raykd.cli import main
from raykd.records.history import History
from raykd.records.ledger import Ledger
from raykd.searching.fanova import main_effects
from raykd.searching.importance import Importances, Weighed, importances
from raykd.searching.proposer import Proposal, Proposer
from raykd.spec.search import SearchSpec
from trainables.core.errors import SweepFailed, UserError

Score = Callable[[Proposal], float]


def records(spec: SearchSpec, score: Score) -> list[dict[str, Any]]:
    """A ledger in which every trial reaches the last epoch, at which it has its score."""
    said = [
        record(
            "sweep",
            spec=spec.model_dump(mode="json"),
            spec_hash=spec.hash(),
            sampler={},
            scheduler={},
            versions={},
            source=None,
        )
    ]
    proposer = Proposer(spec)
    while (proposal := proposer.propose()) is not None:
        if isinstance(proposal, Proposal):
            said += [record("suggest", **proposal.record()), start(proposal.trial)]
            said += [report(proposal.trial, EPOCHS, score(proposal)), end(proposal.trial)]
    return said


def weigh(spec: SearchSpec, score: Score, evaluator: str = "fanova", resamples: int = 30) -> Importances:
    return importances(spec, History.of(records(spec, score)), evaluator, resamples=resamples)


def by_axis(table: Weighed) -> dict[str, float]:
    return {share.axis: share.share for share in table.shares}


def place(value: float, low: float, high: float) -> float:
    return (math.log(value) - math.log(low)) / (math.log(high) - math.log(low))


LR = {"log": [1e-4, 1e-1]}
UNIT = {"uniform": [0, 1]}
CLEAR = {"views.strength": UNIT, "lr": LR}
STEPS = {"queue_size": {"integer": [256, 512], "step": 256}, "batch_size": {"integer": [32, 64], "step": 32}}


def effect(p: Proposal) -> float:
    """Twenty points along `views.strength`, two along `lr`."""
    return 20 * p.params["views.strength"] + 2 * place(p.params["lr"], 1e-4, 1e-1)


def test_shares_of_two_steps_are_their_squares():
    """Steps of 2 and 1 over halves of the space: variances 1 and 1/4, whatever each half was drawn."""
    spec = a_sweep({**STEPS, "lr": [0.001, 0.002, 0.003, 0.004, 0.005]}, 20, sampler="grid")
    found = weigh(spec, lambda p: 2.0 * (p.params["queue_size"] == 512) + (p.params["batch_size"] == 64))
    (table,) = found.tables
    assert by_axis(table) == pytest.approx({"queue_size": 0.8, "batch_size": 0.2, "lr": 0.0}, abs=0.01)
    assert table.configurations == found.trials == 20 and not any(found.left_out.values())


@pytest.mark.timeout(60)
def test_a_pick_of_many_levels_is_weighed_level_by_level():
    """Every 10th of 40 levels has 1 point more, variance 9/100; a step of 0.3 has 9/400: shares 4 to 1."""
    levels = [round(0.001 * n, 3) for n in range(1, 41)]
    spec = a_sweep({"lr": levels, "queue_size": STEPS["queue_size"]}, 80, sampler="grid")

    def score(p: Proposal) -> float:
        return (levels.index(p.params["lr"]) % 10 == 0) + 0.3 * (p.params["queue_size"] == 512)

    (table,) = weigh(spec, score, resamples=5).tables
    assert by_axis(table) == pytest.approx({"lr": 0.8, "queue_size": 0.2}, abs=0.1)


@pytest.mark.parametrize("evaluator", ["fanova", "mdi", "pedanova"])
def test_ten_times_the_effect_comes_first_and_no_effect_about_none(evaluator: str):
    axes = {"views.strength": UNIT, "lr": LR, "weight_decay": {"log": [1e-6, 1e-3]}}
    spec = a_sweep(axes, 60)
    found = weigh(spec, effect, evaluator)
    (table,) = found.tables
    shares = by_axis(table)
    assert table.shares[0].axis == "views.strength" and shares["views.strength"] > 0.6
    assert sum(shares.values()) == pytest.approx(1)
    assert shares["weight_decay"] < 0.15, table
    nothing = next(share for share in table.shares if share.axis == "weight_decay")
    assert nothing.low < 0.03
    assert all(0 <= s.low <= s.share <= s.high <= 1 for s in table.shares)


def test_an_axis_by_magnitude_is_weighed_by_magnitude():
    """Both axes run evenly from 0 to 1 as they are drawn: they share alike. By value, lr would have 1/8."""
    spec = a_sweep({"lr": LR, "views.strength": UNIT}, 80)
    (table,) = weigh(spec, lambda p: place(p.params["lr"], 1e-4, 1e-1) + p.params["views.strength"]).tables
    assert by_axis(table)["lr"] == pytest.approx(0.5, abs=0.15)


def test_the_same_sweep_gives_the_same_numbers():
    spec = a_sweep({"lr": LR, "views.strength": UNIT}, 12)
    once, again = (weigh(spec, lambda p: p.params["views.strength"], resamples=10) for _ in range(2))
    assert once == again


def test_conditional_axes_are_weighed_where_they_take_part():
    axes = {
        "adapter": ["linear", "mlp"],
        "views.strength": UNIT,
        "temperature": {"uniform": [0.1, 1.1], "when": {"adapter": "mlp"}},
    }
    spec = a_sweep(axes, 80)

    def score(p: Proposal) -> float:
        mlp = 30 + 10 * (p.params["temperature"] - 0.1) if p.params["adapter"] == "mlp" else 0
        return mlp + p.params["views.strength"]

    whole, part = weigh(spec, score).tables
    assert (whole.label, part.label) == ("all configurations", "adapter = mlp")
    assert set(by_axis(whole)) == {"adapter", "views.strength"} and by_axis(whole)["adapter"] > 0.9
    # Over the configurations with mlp: variances 100 / 12 and 1 / 12.
    assert set(by_axis(part)) == {"temperature", "views.strength"}
    assert by_axis(part)["temperature"] == pytest.approx(100 / 101, abs=0.04)
    assert whole.configurations == 80 and 25 < part.configurations < 55
    assert not any("did not vary" in line for line in part.warnings)
    (one,) = weigh(spec, score, "pedanova").tables
    assert set(by_axis(one)) == set(axes)


def test_conditions_of_conditions_and_of_several_methods():
    axes = {
        "lr": LR,
        "retro.adapter": ["linear", "mlp"],
        "retro.temperature": {"uniform": [0.1, 1.1], "when": {"retro.adapter": "mlp"}},
        "cc.gamma": UNIT,
    }
    spec = a_sweep(axes, 50, method=["retro", "cc", "seed"], preset=None)
    found = weigh(spec, lambda p: p.params["lr"], resamples=5)
    tables = {table.label: set(by_axis(table)) for table in found.tables}
    assert tables == {
        "all configurations": {"method", "lr"},
        "method = retro": {"lr", "retro.adapter"},
        "method = cc": {"lr", "cc.gamma"},
        "method = retro, retro.adapter = mlp": {"lr", "retro.temperature"},
    }


def test_scores_are_compared_at_an_epoch_that_half_of_the_trials_reached():
    """Of epochs 8, 8, 4, 4, 2, 2, 2 (and one failed, one in flight) at least half got to 4."""
    spec = a_sweep({"views.strength": UNIT, "lr": LR}, 9, epochs=8)

    def history(late: float) -> History:
        found = History()
        proposer = Proposer(spec)
        for reached in (8, 8, 4, 4, 4, 2, 2, 3, 3):
            proposal = proposer.propose()
            assert isinstance(proposal, Proposal)
            name = proposal.trial
            for line in (record("suggest", **proposal.record()), start(name)):
                found.add(line)
            for epoch in range(1, reached + 1):
                found.add(
                    report(name, epoch, late if epoch > 4 else epoch + proposal.params["views.strength"])
                )
            status = {8: "finished", 3: "failed"}.get(reached, "stopped")
            if not (reached == 3 and any(t.status == "failed" for t in found.trials.values())):
                found.add(end(name, status))
        return found

    found = importances(spec, history(0.0), resamples=5)
    assert (found.epoch, found.epochs, found.trials, found.configurations) == (4, 8, 5, 5)
    assert found.left_out == {"failed": 1, "stopped earlier": 2, "without a score": 0, "not ended": 1}
    said = " ".join(found.warnings)
    assert "2 trials were stopped before epoch 4" in said and "trials that have not ended: 1;" in said
    assert found.tables[0].shares == importances(spec, history(99.0), resamples=5).tables[0].shares


def test_replicates_are_one_observation():
    """Scores 5 above and below a value are that value; a resample never takes a configuration apart."""
    spec = a_sweep(CLEAR, 15, seeds=[0, 1])

    def score(p: Proposal) -> float:
        return round(64 * p.params["views.strength"])

    found = weigh(spec, lambda p: score(p) + (5 if p.replicate else -5), resamples=10)
    assert (found.trials, found.configurations) == (30, 15)
    assert found == weigh(spec, score, resamples=10)


def test_a_sweep_that_is_too_small_says_so_and_a_larger_one_does_not():
    axes = {"views.strength": UNIT, "lr": LR}

    def noise(p: Proposal) -> float:
        return int(p.trial, 16) % 1000  # a hash: settles on nothing

    small = " ".join(weigh(a_sweep(axes, 12), noise).tables[0].warnings)
    assert "12 configurations for 2 axes, fewer than 10 an axis" in small
    assert "matters most is open" in small and "no better than their mean" in small
    large = " ".join(weigh(a_sweep(axes, 60), noise).tables[0].warnings)
    assert "no better than their mean" in large and "fewer than" not in large
    (clear,) = weigh(a_sweep(axes, 60), effect).tables
    assert clear.warnings == () and clear.predicted > 0.8


@pytest.mark.parametrize("evaluator", ["fanova", "mdi", "pedanova"])
def test_nothing_to_weigh_is_said_in_words(evaluator: str):
    axes = {"views.strength": UNIT, "lr": LR}

    def said(found: Importances) -> str:
        assert found.tables[0].shares == ()
        return " ".join(found.tables[0].warnings)

    assert "same score" in said(weigh(a_sweep(axes, 12), lambda p: 50.0, evaluator))
    assert "1 configuration: too few" in said(weigh(a_sweep(axes, 1), lambda p: 50.0, evaluator))
    still = a_sweep({"lr": [0.01], "views.strength": UNIT}, 12)
    fixed = weigh(still, lambda p: p.params["views.strength"], evaluator)
    assert by_axis(fixed.tables[0]) == {"views.strength": 1.0}
    text = " ".join(fixed.tables[0].warnings)
    assert "lr did not vary" in text and "views.strength is the only axis that varied" in text
    # One odd score in six: many a resample is constant and left out; the best half of six equals is all six.
    (odd,) = weigh(a_sweep(axes, 6), lambda p: 50.0 + (p.number == 0), evaluator).tables
    if evaluator == "pedanova":
        assert odd.shares == () and "tell nothing apart" in odd.warnings[0]
    else:
        assert 0 < odd.resamples < 30


def test_what_cannot_be_weighed_at_all():
    spec = a_sweep({"lr": LR}, 2)
    with pytest.raises(SweepFailed, match="no trial"):
        importances(spec, History())
    with pytest.raises(UserError, match="Did you mean 'fanova'"):
        importances(spec, History(), "fanowa")
    with pytest.raises(UserError, match="nothing to weigh"):
        importances(a_sweep({}, 1), History())


def test_the_verb(tmp_path, capsys):
    spec = a_sweep({"views.strength": UNIT, "lr": LR, "adapter": ["linear", "mlp"]}, 12)
    with Ledger.create(tmp_path / "known") as ledger:
        for line in records(spec, lambda p: 20 * p.params["views.strength"]):
            ledger.append(**{key: value for key, value in line.items() if key != "time"})
    shown = raykd("importance", "known", "--storage", tmp_path, "--resamples", "20")
    assert shown.returncode == 0, shown.stderr
    assert "12 trials of 12 configurations" in shown.stdout and "epoch 4 of 4" in shown.stdout
    assert "too small to say: 12 configurations for 3 axes" in shown.stdout
    rows = [line.split() for line in shown.stdout.splitlines()]
    assert next(row[0] for row in rows[rows.index(["axis", "share", "from", "to"]) + 1 :]) == "views.strength"
    arguments = ["importance", "known", "--storage", str(tmp_path), "--resamples", "20"]
    with pytest.raises(SystemExit) as ended:
        main([*arguments, "--json"])
    found = json.loads(capsys.readouterr().out)
    (table,) = found["tables"]
    assert ended.value.code == 0 and table["shares"][0]["axis"] == "views.strength"
    assert (found["epoch"], found["trials"], table["resamples"]) == (4, 12, 20)
    with pytest.raises(SystemExit) as ended:
        main([*arguments, "--evaluator", "shap"])
    assert ended.value.code == 2 and "no such evaluator" in capsys.readouterr().err


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 2**31), count=st.integers(2, 60), axes=st.integers(1, 4))
def test_fanova_s_numbers_are_optuna_s(seed: int, count: int, axes: int) -> None:
    rng = np.random.default_rng(seed)
    names = [f"x{axis}" for axis in range(axes)]
    space = {name: FloatDistribution(-0.5 if name == "x1" else -7, 3.5) for name in names}
    bounds = np.array([[space[name].low, space[name].high] for name in names])
    places = rng.uniform(bounds[:, 0], bounds[:, 1], (count, axes))
    if "x1" in names:
        places[:, 1] = rng.integers(0, 4, count)  # the positions of a pick
    scores = np.round(places[:, 0] ** 2 + places.sum(axis=1) + rng.normal(0, 1, count), 1)
    study = optuna.create_study(direction="maximize")
    for row, score in zip(places.tolist(), scores.tolist(), strict=True):
        params = dict(zip(names, row, strict=True))
        study.add_trial(optuna.trial.create_trial(params=params, distributions=space, value=score))
    ours = main_effects(places, scores, bounds, 6, seed)
    try:
        theirs = FanovaImportanceEvaluator(n_trees=6, seed=seed).evaluate(study, names)
    except RuntimeError:  # no tree has any variance
        assert np.isnan(ours).all()
    else:
        assert ours == pytest.approx([theirs[name] for name in names], rel=1e-6, abs=1e-9)
