"""The decider: Tune's verdicts, the same after a replay as without one."""

from __future__ import annotations

import math
import random
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ray.tune.schedulers import AsyncHyperBandScheduler, MedianStoppingRule

from raykd.lanes.messages import Message
from raykd.lanes.proxy import pack
from raykd.records.history import History
from raykd.records.ledger import Ledger
from raykd.records.recorder import Recorder
from raykd.searching.decisions import Decider, TuneDecider, _NoController, _Stub
from raykd.spec.schedulers import SCHEDULERS, parse_scheduler
from raykd.spec.schedulers.base import SchedulerSpec
from raykd.spec.schedulers.parts.median_rule import MedianRule
from raykd.spec.schedulers.parts.steady_halving import SteadyHalving

EPOCHS = 16


def curve(trial: int, epoch: int) -> float:
    """A score that rises with the epoch, higher for some trials, with noise of its own."""
    noise = random.Random(trial * 1000 + epoch).gauss(0, 2)
    return 40 + 2 * (trial * 7 % 11) + epoch + noise


def scheduler(name: str, **settings: int) -> SchedulerSpec:
    """The scheduler of that name, which stops no trial before its second epoch."""
    return parse_scheduler({"name": name, **({} if name == "none" else {"grace": 2}), **settings})


def suggest(number: int) -> dict[str, Any]:
    return {
        "kind": "suggest",
        "time": 0.0,
        "trial": f"{number:08x}",
        "number": number,
        "arm": f"{number:08x}",
        "replicate": 0,
        "params": {},
        "config": {"method": "retro"},
        "origin": "sampler",
        "attrs": {},
    }


def run(
    spec: SchedulerSpec, trials: int, lanes: int, history: History | None = None, limit: int = 10**9
) -> History:
    """Train `trials` in `lanes` at once, epoch by epoch in turn, at most `limit` reports, recording all."""
    history = history or History()
    decider = Decider(spec, EPOCHS)
    assert decider.replay(history) == []
    reports = len(history.arrivals)
    while True:
        live = [t for t in history.trials.values() if t.status not in ("finished", "stopped")]
        while len(live) < lanes and len(history.trials) < trials:
            history.add(suggest(len(history.trials)))
            live = [t for t in history.trials.values() if t.status not in ("finished", "stopped")]
        if not live or reports >= limit:
            return history
        trial = live[reports % len(live)]
        epoch = trial.epoch + 1
        metrics = {"score": curve(trial.number, epoch)}
        history.add({"kind": "report", "time": 0.0, "trial": trial.trial, "epoch": epoch, "metrics": metrics})
        go = decider.decide(trial.trial, trial.number, epoch, metrics["score"])
        verdict = "go" if go else "stop"
        history.add(
            {"kind": "verdict", "time": 0.0, "trial": trial.trial, "epoch": epoch, "verdict": verdict}
        )
        if not go:
            status = "finished" if epoch == EPOCHS else "stopped"
            history.add({"kind": "end", "time": 0.0, "trial": trial.trial, "status": status, "reason": None})
        reports += 1


def verdicts(history: History) -> dict[str, dict[int, str]]:
    return {name: dict(trial.verdicts) for name, trial in history.trials.items()}


@settings(max_examples=25)
@given(
    name=st.sampled_from(sorted(SCHEDULERS)),
    lanes=st.integers(1, 4),
    cut=st.integers(0, 120),
)
def test_a_decider_that_was_replayed_goes_on_as_if_nothing_had_happened(
    name: str, lanes: int, cut: int
) -> None:
    spec = scheduler(name)
    whole = run(spec, trials=10, lanes=lanes)
    resumed = run(spec, trials=10, lanes=lanes, history=run(spec, trials=10, lanes=lanes, limit=cut))
    assert verdicts(resumed) == verdicts(whole)


def test_asha_stops_at_rungs_by_the_share_that_factor_says() -> None:
    decider = Decider(parse_scheduler({"name": "asha", "grace": 4, "factor": 2}), EPOCHS)
    scores = [10.0, 20.0, 14.0, 30.0]
    for number, score in enumerate(scores):
        assert decider.decide(str(number), number, 3, -score), "no verdict before the first rung"
    went_on = [decider.decide(str(number), number, 4, score) for number, score in enumerate(scores)]
    # The first is alone on its rung; each later one must reach the median of those before it: 10, 15, 14.
    assert went_on == [True, True, False, True]
    assert not decider.decide("last", 9, 4, 1.0)
    assert not decider.decide("last but one", 8, EPOCHS, 99.0), "every trial ends at the last epoch"


def test_nothing_is_decided_about_a_report_without_a_score() -> None:
    decider = Decider(parse_scheduler({"name": "asha", "grace": 1, "factor": 2}), EPOCHS)
    assert decider.decide("a", 0, 1, 50.0)
    assert decider.decide("b", 1, 1, None)
    assert not decider.decide("b", 1, EPOCHS, None)


@pytest.mark.parametrize("name", ["asha", "hyperband", "median"])
def test_a_score_that_is_no_number_is_no_merit(name: str) -> None:
    few = {"min_samples": 1} if name == "median" else {}
    decider, with_nan = (Decider(scheduler(name, **few), EPOCHS) for _ in range(2))
    assert with_nan.decide("bad", 0, 1, math.nan), "it may not be stopped yet"
    assert not with_nan.decide("bad", 0, 2, math.nan)
    for number in range(3, 9):
        score = float(number * 7 % 5)
        assert decider.decide(str(number), number, 2, score) == with_nan.decide(str(number), number, 2, score)
    assert Decider(parse_scheduler({"name": "none"}), EPOCHS).decide("bad", 0, 2, math.nan)


def test_a_verdict_lost_in_a_crash_is_found_again_on_replay() -> None:
    spec = parse_scheduler({"name": "asha", "grace": 2, "factor": 2})
    history = History()
    for number, score in ((0, 90.0), (1, 1.0)):
        history.add(suggest(number))
        for epoch in (1, 2):
            metrics = {"score": score}
            name = f"{number:08x}"
            history.add({"kind": "report", "time": 0.0, "trial": name, "epoch": epoch, "metrics": metrics})
            if (number, epoch) != (1, 2):
                history.add({"kind": "verdict", "time": 0.0, "trial": name, "epoch": epoch, "verdict": "go"})
    assert Decider(spec, EPOCHS).replay(history) == [("00000001", 2, False)]


@pytest.mark.parametrize("name", sorted(SCHEDULERS))
def test_a_trial_that_went_on_where_the_rule_now_stops_it_is_judged_further(name: str) -> None:
    """Records may have been lost since, so that a replay decides otherwise than the driver did."""
    few = {"min_samples": 1} if name == "median" else {}
    decider, history = Decider(scheduler(name, **few), EPOCHS), History()
    for number, score in enumerate((90.0, 80.0, 95.0, 10.0)):
        history.add(suggest(number))
        for epoch in range(1, 10):
            said = {"trial": f"{number:08x}", "time": 0.0, "epoch": epoch}
            history.add({"kind": "report", **said, "metrics": {"score": score + epoch}})
            if epoch < 9:
                history.add({"kind": "verdict", **said, "verdict": "go"})
    undecided = decider.replay(history)
    assert [(trial, epoch) for trial, epoch, _ in undecided] == [(f"{n:08x}", 9) for n in range(4)]
    if name == "median":
        assert [go for _, _, go in undecided] == [True, False, True, False], "below the median of the others"


def test_what_a_proxy_says_twice_is_written_once(tmp_path: Path) -> None:
    """It asks again before the driver's answer has reached the broker, or is started anew."""

    class Deaf:
        """In place of broker and proposer."""

        def __getattr__(self, name: str) -> Any:
            return self

        def __call__(self, *_: object) -> None: ...

    history = History()
    history.add(suggest(0))
    (name,) = history.trials
    tune_trial = SimpleNamespace(config={"task": {"id": name}})
    with Ledger.create(tmp_path) as ledger:
        deaf: Any = Deaf()
        decider = TuneDecider(
            Decider(parse_scheduler({"name": "none"}), EPOCHS), Recorder(ledger, history), deaf, deaf, EPOCHS
        )
        begun = [Message(attempt=1, lane="lane-0"), Message(attempt=2, lane="lane-1")]
        epoch = Message(epoch=1, metrics={"score": 50.0})
        for message in [begun[0], begun[0], epoch, epoch, begun[1], begun[1], epoch]:
            assert decider.on_trial_result(None, tune_trial, pack(message)) == "CONTINUE"
    said = [(r["kind"], r.get("attempt") or r["epoch"]) for r in Ledger.read(tmp_path)]
    assert said == [("start", 1), ("report", 1), ("verdict", 1), ("start", 2)]


@pytest.mark.parametrize("name", ["asha", "hyperband"])
def test_early_stopping_spends_less_than_training_everything(name: str) -> None:
    spent = {
        kind: sum(t.epoch for t in run(scheduler(kind), trials=20, lanes=2).trials.values())
        for kind in (name, "none")
    }
    assert spent["none"] == 20 * EPOCHS
    assert spent[name] < 0.8 * spent["none"]


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**32), grace=st.integers(1, 4), fewest=st.integers(1, 4), orderly=st.booleans())
def test_the_median_rule_says_what_tune_s_own_says(seed: int, grace: int, fewest: int, orderly: bool) -> None:
    """Reports in any order, of some epochs; not `orderly`: an earlier epoch after a later one."""
    dice = random.Random(seed)
    settings = {
        "time_attr": "epoch", "metric": "score", "mode": "max", "grace_period": grace,
        "min_samples_required": fewest, "min_time_slice": 0,
    }  # fmt: skip
    rules = [kind(**settings) for kind in (MedianStoppingRule, MedianRule)]
    live = dict.fromkeys(range(12), 0)
    for _ in range(100):
        if not live:
            break
        name = dice.choice(list(live))
        step = 1 if orderly else dice.choice([1, 1, 1, 2, 3, -1])
        live[name] = max(1, live[name] + step)
        result = {"epoch": live[name], "score": round(dice.gauss(name / 3, 2), 1)}
        said = {rule.on_trial_result(_NoController(), _Stub(str(name)), dict(result)) for rule in rules}
        assert len(said) == 1, (result, said)
        if said == {"STOP"}:
            del live[name]


SCORE = st.one_of(
    st.floats(-100, 100),
    st.sampled_from([0.0, 1.0, 1.0 + 2**-52, 99.9, 1e308, -1e308]),  # ties, neighbours, and what overflows
)


@settings(max_examples=200, deadline=None)
@given(
    scores=st.lists(SCORE, min_size=1, max_size=60),
    strange=st.dictionaries(st.integers(0, 59), st.sampled_from([math.nan, math.inf, -math.inf]), max_size=2),
    factor=st.one_of(st.floats(1, 20, exclude_min=True), st.sampled_from([2.0, 3.0, 4.0, 1 + 2**-52, 1e300])),
    grace=st.integers(1, 4),
    seed=st.integers(0, 2**32),
)
@pytest.mark.filterwarnings("ignore:All-NaN", "ignore:invalid value", "ignore:overflow")
def test_halving_says_what_tune_s_own_says(
    scores: list[float], strange: dict[int, float], factor: float, grace: int, seed: int
) -> None:
    """The same verdicts, from cutoffs that are the same to the last bit, whatever trials report when."""
    arguments: dict[str, Any] = {
        "time_attr": "epoch", "metric": "score", "mode": "max", "max_t": EPOCHS,
        "reduction_factor": max(factor, 1.5), "grace_period": grace,
    }  # fmt: skip
    dice, rules = (
        random.Random(seed),
        [kind(**arguments) for kind in (AsyncHyperBandScheduler, SteadyHalving)],
    )
    for rule in rules:  # a factor of nearly 1 has too many rungs for Tune
        rule._brackets[0].rf = factor
        rule._brackets[0]._share = (1 - 1 / factor) * 100 / 100
    reached: dict[str, int] = {}
    for number, score in enumerate(scores):
        name = str(dice.choice([*reached, number]))
        trial = _Stub(name)
        if name not in reached:
            for rule in rules:
                rule.on_trial_add(_NoController(), trial)
        reached[name] = reached.get(name, 0) + dice.choice([1, 1, 1, 2, 5, -1])
        result = {"epoch": reached[name], "score": strange.get(number, score)}
        said = {rule.on_trial_result(_NoController(), trial, result) for rule in rules}
        assert len(said) == 1, (result, said)
        theirs, ours = (
            [bracket.cutoff(recorded) for _, recorded in bracket._rungs]
            for bracket in (rule._brackets[0] for rule in rules)
        )
        assert list(map(repr, map(_plain, theirs))) == list(map(repr, map(_plain, ours)))


def _plain(cutoff: Any) -> float | None:
    return None if cutoff is None else float(cutoff) + 0.0  # of two zeros the sign is no difference
