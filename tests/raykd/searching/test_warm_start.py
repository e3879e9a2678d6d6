"""`warm_start`: which earlier trials the sampler is told, which are tried, and that nothing else changes."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from optuna.trial import TrialState
from proposing import BASE, QUICK, Driver, play, score, states, sweep

from raykd.records.earlier import Earlier, ToldTrial
from raykd.records.history import History
from raykd.searching.proposer import Proposal, Proposer
from raykd.searching.warm_start import take_over
from raykd.spec.samplers import SAMPLERS
from raykd.spec.search import SearchSpec, build_sweep
from trainables.core.errors import UserError
from trainables.training.flat_names import flatten

torch.set_num_threads(1)

STRENGTH = {"views.strength": {"uniform": [0, 1]}}
NUMBERS = {"lr": {"log": [1e-3, 1e-1]}, "gamma": {"log": [0.01, 1]}, **STRENGTH}
LEARNERS = [name for name in SAMPLERS if name != "grid"]


def follower(spec: SearchSpec, **change: Any) -> SearchSpec:
    """Another sweep over the same space."""
    raw = spec.model_dump(mode="json", exclude={"points"})
    return build_sweep({**raw, "name": "t", "warm_start": ["s"], **change})


def rows(earlier: Earlier) -> dict[tuple[str, str], int]:
    return {(row.use, row.reason): row.trials for row in earlier.rows}


# --- what the sampler makes of it ---------------------------------------------------------------------------


@given(st.sampled_from(["tpe", "random"]), st.integers(0, 2**20), st.integers(4, 14), st.integers(1, 3))
@settings(max_examples=12)
def test_it_proposes_what_a_sampler_would_that_had_seen_these_trials(
    sampler: str, seed: int, known: int, lanes: int
) -> None:
    """The first sweep, extended, and the one that is told of it go on alike, step by step."""
    spec = sweep(sampler, samples=known, seeds=[0], seed=seed)
    driver, _ = play(spec, lanes=lanes, seed=seed)
    if driver.history.repeats:
        return  # each is one more observation of the first sweep alone
    seen = driver.resumed(samples=known + 5)
    told = take_over(follower(spec), {"s": driver.history})
    assert len(told.told) == known and not told.points
    warm = Proposer(follower(spec, samples=5), earlier=told)
    assert states(warm) == states(seen)
    for _ in range(5):
        one, other = warm.propose(), seen.propose()
        assert isinstance(one, Proposal) and isinstance(other, Proposal)
        assert (one.params, one.trial, one.number) == (other.params, other.trial, other.number - known)
        for proposer in (warm, seen):
            proposer.report(one.trial, 1, score(one.params, 1))
            proposer.end(one.trial, "finished")
    assert warm.propose() is None, "told trials are none of its samples"


def test_told_trials_count_among_the_random_ones_that_come_first() -> None:
    """TPE draws at random until it knows `n_startup_trials` with a score."""
    spec = sweep(samples=12, method="retro", axes=NUMBERS)
    earlier = take_over(follower(spec), {"s": play(spec)[0].history})
    scored = sum(told.status != "failed" for told in earlier.told)
    assert 0 < scored < len(earlier.told)

    def first(startup: int) -> dict[str, Any]:
        tpe = {"name": "tpe", "n_startup_trials": startup}
        proposal = Proposer(follower(spec, sampler=tpe), earlier=earlier).propose()
        assert isinstance(proposal, Proposal)
        return proposal.params

    at_random = first(10_000)
    assert first(scored + 1) == at_random != first(scored)


def test_cma_es_begins_where_the_earlier_trials_were_best() -> None:
    """Also in a space with picks and conditions, whose axes Optuna's own `source_trials` refuses."""
    spec = sweep("random", samples=60, method="retro", axes={**NUMBERS, "adapter": ["linear", "mlp"]})
    history = play(spec)[0].history
    best = sorted((t for t in history.trials.values() if t.status == "finished"), key=lambda t: -t.best[0])  # type: ignore[index]
    of_best = sum(t.params["views.strength"] for t in best[:4]) / 4
    cold, warm = (
        Proposer(follower(spec, samples=40, sampler={"name": "cmaes", "popsize": 20}), earlier=earlier)
        for earlier in (None, take_over(follower(spec, sampler="cmaes"), {"s": history}))
    )
    apart = {}
    for name, proposer in (("cold", cold), ("warm", warm)):
        proposals = [proposer.propose() for _ in range(20)]
        values = [p.params["views.strength"] for p in proposals if isinstance(p, Proposal)]
        apart[name] = sum(abs(value - of_best) for value in values) / len(values)
    assert apart["warm"] < 0.7 * apart["cold"]


@pytest.mark.parametrize("few", [1, 5])
def test_cma_es_begins_cold_where_too_little_was_told(few: int) -> None:
    spec = sweep("random", samples=few, method="retro", axes=NUMBERS)
    earlier = take_over(follower(spec), {"s": play(spec)[0].history})
    driver, _ = play(follower(spec, samples=12, sampler={"name": "cmaes", "popsize": 4}), earlier=earlier)
    assert len(driver.done) == 12


def test_nsga_ii_breeds_from_the_earlier_trials() -> None:
    """Told trials are its first generation: a child has its parents' values, or a mutated one."""
    spec = sweep(
        "random", samples=40, method="retro", axes={"queue_size": {"integer": [32, 4096]}, **NUMBERS}
    )
    earlier = take_over(follower(spec), {"s": play(spec)[0].history})
    known = {told.params["queue_size"] for told in earlier.told if told.status == "finished"}
    breeding = follower(spec, sampler={"name": "nsgaii", "population_size": 8, "mutation_prob": 0.0})
    proposer = Proposer(breeding, earlier=earlier)
    children = [proposer.propose() for _ in range(6)]
    assert all(isinstance(child, Proposal) and child.params["queue_size"] in known for child in children)


@pytest.mark.parametrize("sampler", LEARNERS)
def test_a_resumed_sweep_goes_on_as_the_uninterrupted_one(sampler: str) -> None:
    first = sweep("random", samples=14)
    spec = sweep(sampler, samples=6 if sampler == "gp" else 12, name="t", epochs=8, warm_start=["s"])
    earlier = take_over(spec, {"s": play(first)[0].history})
    driver = Driver(spec, earlier=earlier)
    proposer, going = driver.resumed(), True
    assert driver.history.earlier == earlier, "the ledger holds all that a driver needs"
    while going:
        resumed = driver.resumed()
        assert states(resumed) == states(proposer) and resumed.running == proposer.running
        written = len(driver.records)
        going = driver.step(proposer)
        for record in [r for r in driver.records[written:] if r["kind"] == "suggest"][:1]:
            again = resumed.propose()
            assert again is not None and (again.number, again.params) == (record["number"], record["params"])
    assert sorted(p.number for p in driver.done) == list(range(len(driver.done)))


def test_it_is_told_as_the_live_sampler_was() -> None:
    spec = sweep("random", samples=12)
    driver, live = play(spec)
    told = Proposer(follower(spec), earlier=take_over(follower(spec), {"s": driver.history}))
    assert states(told) == states(live)
    assert {state for state, *_ in states(told)} == {TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL}


def test_what_was_told_is_none_of_the_sweep_s_own() -> None:
    spec = sweep("random", samples=8)
    earlier = take_over(follower(spec), {"s": play(spec)[0].history})
    driver = Driver(follower(spec, samples=3), earlier=earlier)
    assert driver.history.best() is None and driver.history.counts()["finished"] == 0
    assert driver.history.total == 3 and not driver.history.arrivals


# --- which trials are told ----------------------------------------------------------------------------------


SMALL = {**BASE, "method": "retro", "axes": {"lr": {"log": [1e-3, 1e-1]}, "adapter": ["linear", "mlp"]}}


def known(raw: dict[str, Any] | None = None, **trial: Any) -> History:
    """A sweep of one trial with lr 0.02 that reported a score."""
    spec = build_sweep({**(raw or SMALL), "samples": 1})
    params = {"lr": 0.02, "adapter": "mlp", **trial.pop("params", {})}
    seed, status = trial.pop("seed", 0), trial.pop("status", "finished")
    of = spec.trial({k: v for k, v in params.items() if v is not None}, seed)
    about = {"trial": of.signature(), "arm": of.arm(), "config": flatten(of), "params": params}
    records: list[dict[str, Any]] = [
        {"kind": "sweep", "spec": spec.model_dump(mode="json")},
        {"kind": "suggest", "number": 0, "replicate": seed, "origin": "sampler", "attrs": {}, **about},
        {"kind": "start", "trial": about["trial"], "attempt": 1, "lane": None},
        {"kind": "report", "trial": about["trial"], "epoch": 1, "metrics": {"score": 50.0}},
        {"kind": "end", "trial": about["trial"], "status": status, "reason": None},
    ]
    return History.of([{"time": float(at), **r} for at, r in enumerate(records) if r.get("status") != "open"])


def changed(path: str, value: Any) -> dict[str, Any]:
    raw = copy.deepcopy(SMALL)
    *above, last = path.split("/")
    here = raw
    for part in above:
        here = here.setdefault(part, {})
    here[last] = value
    return raw


CASES: list[tuple[str, dict[str, Any], Callable[[], History], str, str]] = [
    ("the same space", SMALL, known, "told", "the same trial here"),
    ("a stopped trial", SMALL, lambda: known(status="stopped"), "told", "the same trial here"),
    ("a failed trial", SMALL, lambda: known(status="failed"), "told", "the same trial here"),
    ("one in flight", SMALL, lambda: known(status="open"), "outside", "has not ended"),
    ("an axis that was fixed", SMALL,
     lambda: known({**SMALL, "axes": {"lr": [0.02, 0.03]}, "fixed": {"adapter": "mlp"}},
                   params={"adapter": None}),
     "told", "the same trial here"),
    ("a field that is fixed now", {**SMALL, "axes": {"lr": [0.02, 0.5]}, "fixed": {"adapter": "mlp"}}, known,
     "told", "the same trial here"),
    ("fixed at another value", {**SMALL, "axes": {"lr": [0.02, 0.5]}, "fixed": {"adapter": "linear"}}, known,
     "point", "adapter mlp, here linear"),
    ("epochs", changed("epochs", 9), known, "point", "epochs 8, here 9"),
    ("a probe", changed("probe", {"score": "knn"}), known, "point", "probe.score ridge_5shot, here knn"),
    ("a split", changed("data", {"split_seed": 3}), known, "point", "data.split_seed 0, here 3"),
    ("data", changed("data", {"name": "digits", "validation": 0.3}), known, "point", "data.validation"),
    ("a teacher", changed("teacher/train/epochs", 3), known, "point", "teacher.train.epochs 2, here 3"),
    ("a student", changed("student", {"arch": "test_resnet"}), known, "point",
     "student.arch test_efficientnet, here test_resnet"),
    ("a failed one that differs", changed("epochs", 9), lambda: known(status="failed"), "outside",
     "has no score, and epochs 8, here 9"),
    ("another seed", SMALL, lambda: known(seed=3), "point", "seed 3 is none of `seeds`"),
    ("one of the seeds", changed("seeds", [0, 3]), lambda: known(seed=3), "told", "the same trial here"),
    ("above", changed("axes/lr", {"log": [1e-3, 1e-2]}), known, "outside", "lr above 0.01"),
    ("below", changed("axes/lr", {"log": [0.05, 1]}), known, "outside", "lr below 0.05"),
    ("no level", changed("axes/adapter", ["linear", "bottleneck"]), known, "outside",
     "adapter mlp is none of linear, bottleneck"),
    ("no step", changed("axes/queue_size", {"integer": [100, 500], "step": 100}),
     lambda: known(changed("fixed", {"queue_size": 256})), "outside",
     "queue_size 256 is not on integer [100, 500] step 100"),
    ("a method", {**changed("method", "moco"), "axes": {"lr": {"log": [1e-3, 1e-1]}}}, known, "outside",
     "method retro is not searched here"),
    ("one of the methods", changed("method", ["retro", "moco"]), known, "told", "the same trial here"),
    ("a condition", changed("axes/symmetric", {"pick": [True, False], "when": {"adapter": "linear"}}),
     lambda: known(changed("fixed", {"symmetric": False})), "point", "symmetric false, here true"),
]  # fmt: skip


@pytest.mark.parametrize(("raw", "source", "use", "reason"), [case[1:] for case in CASES],
                         ids=[case[0] for case in CASES])  # fmt: skip
def test_a_score_is_told_only_where_the_trial_would_be_the_same(
    raw: dict[str, Any], source: Callable[[], History], use: str, reason: str
) -> None:
    spec = build_sweep({**raw, "name": "t", "samples": 8, "warm_start": ["s"]})
    earlier = take_over(spec, {"s": source()})
    ((row),) = earlier.rows
    assert (row.sweep, row.trials, row.use) == ("s", 1, use) and reason in row.reason
    assert len(earlier.told) == (use == "told") and len(earlier.points) == (use == "point")
    for taken in (*earlier.told, *earlier.points):
        assert spec.trial(taken.params, 0).optim.lr == 0.02
        proposer = Proposer(spec, earlier=earlier)
        first = proposer.propose()
        assert isinstance(first, Proposal) and first.number == 0
        if use == "point":
            assert (first.origin, first.params) == ("point", taken.params)


def test_a_teacher_s_file_that_has_changed_makes_another_trial(tmp_path: Path) -> None:
    file = tmp_path / "teacher.pt"
    file.write_bytes(b"one")
    raw = changed("teacher", {"arch": "test_resnet", "checkpoint": str(file)})
    there = known(raw)
    spec = build_sweep({**raw, "name": "t", "samples": 8, "warm_start": ["s"]})
    assert rows(take_over(spec, {"s": there})) == {("told", "the same trial here"): 1}
    file.write_bytes(b"another")
    assert [(use, "changed since" in why) for use, why in rows(take_over(spec, {"s": there}))] == [
        ("point", True)
    ]


def test_few_of_the_best_are_tried_and_sweeps_take_turns() -> None:
    """At most a quarter of the samples. Scores of two sweeps do not compare, their orders do."""
    one, two = (play(sweep("random", name=name, samples=12, seed=seed, epochs=8))[0].history
                for name, seed in (("s", 0), ("u", 1)))  # fmt: skip
    spec = sweep(name="t", samples=17, epochs=9, warm_start=["s", "u"])
    earlier = take_over(spec, {"s": one, "u": two})
    assert [point.sweep for point in earlier.points] == ["s", "u", "s", "u"] and not earlier.told
    for name, history in (("s", one), ("u", two)):
        whole = [t for t in history.trials.values() if t.status == "finished" and t.best]
        best = sorted(whole, key=lambda t: -(t.best or (0.0,))[0])[:2]
        assert [p.trial for p in earlier.points if p.sweep == name] == [t.trial for t in best]
    by_use = {use: sum(row.trials for row in earlier.rows if row.use == use) for use in ("point", "spare")}
    assert by_use["point"] == 4 and sum(row.trials for row in earlier.rows) == 24
    assert any("at most 4 of 17 samples" in row.reason for row in earlier.rows if row.use == "spare")
    proposer = Proposer(spec, earlier=earlier)
    proposals = [p for _ in range(9) if isinstance(p := proposer.propose(), Proposal)]
    assert [p.origin for p in proposals][:6] == ["point"] * 4 + ["sampler"] * 2


def test_points_of_the_user_come_first_and_no_settings_are_tried_twice() -> None:
    own = {"lr": 0.02, "adapter": "mlp"}
    spec = build_sweep({**changed("epochs", 9), "name": "t", "samples": 8, "points": [own]})
    earlier = take_over(spec, {"s": known(), "u": known(params={"lr": 0.03})})
    assert [point.params["lr"] for point in earlier.points] == [0.03]
    proposer = Proposer(spec, earlier=earlier)
    found = [p.params["lr"] for _ in range(2) if isinstance(p := proposer.propose(), Proposal)]
    assert found == [0.02, 0.03]


def test_replicates_are_one_point_with_their_mean_score() -> None:
    spec = build_sweep({**changed("epochs", 9), "name": "t", "samples": 8})
    several = sweep("random", method="retro", samples=3, seeds=[0, 1], axes=SMALL["axes"])
    history = play(several)[0].history
    scored = {}
    for trial in history.trials.values():
        if trial.best and trial.status != "failed":
            scored.setdefault(trial.arm, []).append(trial.best[0])
    for point in take_over(spec, {"s": history}).points:
        of = scored[history.trials[point.trial].arm]
        assert point.score == pytest.approx(sum(of) / len(of))


def test_a_sweep_without_earlier_ones_is_written_as_before() -> None:
    plain = build_sweep(SMALL)
    assert "warm_start" not in plain.model_dump(mode="json")
    assert build_sweep({**SMALL, "warm_start": []}).hash() == plain.hash()
    assert build_sweep({**SMALL, "warm_start": "s"}).warm_start == ("s",)
    with pytest.raises(UserError, match=r"warm_start.*grid"):
        sweep("grid", samples=None, warm_start=["s"], axes={"adapter": ["linear", "mlp"]})


def test_the_copy_in_the_ledger_is_whole() -> None:
    spec = sweep("random", samples=9)
    earlier = take_over(sweep(name="t", samples=8, epochs=9), {"s": play(spec)[0].history})
    driver = Driver(spec, earlier=earlier)
    assert driver.history.earlier == earlier and earlier.points
    assert QUICK and Earlier.of(earlier.record()) == earlier


def test_a_preset_that_was_told_is_not_tried_again() -> None:
    fresh = sweep("tpe", samples=4, start="presets")
    presets = [params for _, params in fresh.first_points]
    own = Proposer(fresh).propose()
    assert isinstance(own, Proposal) and own.origin == "preset" and own.params == presets[0]
    told = ToldTrial("s", own.trial, own.params, "finished", {1: 50.0})
    again = Proposer(fresh, None, Earlier(told=(told,))).propose()
    assert isinstance(again, Proposal) and again.origin == "preset" and again.params == presets[1]
