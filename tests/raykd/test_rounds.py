"""Rounds of replicates: order, looks, closing, and that a rebuilt one goes on as the one before."""

from __future__ import annotations

import json
from pathlib import Path
from random import Random
from typing import Any

import pytest
import torch
from test_study import BASE, GAMMA

from raykd.arms import ARM
from raykd.conclusions import conclude
from raykd.history import History
from raykd.ledger import Ledger
from raykd.proposer import Proposal, Wait
from raykd.recorder import Recorder
from raykd.references import representative, to_prepare
from raykd.rounds import Rounds
from raykd.search import LedgerSearch
from raykd.spec import SweepSpec
from raykd.study import build_study

torch.set_num_threads(1)

FIXED = {**GAMMA, "factors": {"gamma": [0.1, 1.0, 2.0]}, "replicates": 4}
DECIDE = {**FIXED, "replicates": None, "decide": True, "max_replicates": 9}
PRECISE = {**FIXED, "replicates": None, "precision": 1.0, "max_replicates": 9}


def study(raw: dict[str, Any]) -> SweepSpec:
    return build_study({k: v for k, v in raw.items() if v is not None}, Path("nowhere"))


class Engine:
    """Plays the engine: so many trials at once, ending in any order, everything in records as JSON."""

    def __init__(self, spec: SweepSpec, effect: dict[str, float], seed: int, lanes: int = 3) -> None:
        self.spec, self.effect, self.rng, self.lanes = spec, effect, Random(seed), lanes
        self.noise = Random(seed + 1000)
        self.records: list[dict[str, Any]] = []
        self.live: list[Proposal] = []
        self.over = False
        self.write("sweep", spec=spec.model_dump(mode="json"))

    def write(self, kind: str, **fields: Any) -> None:
        self.records.append(
            json.loads(json.dumps({"kind": kind, "time": float(len(self.records)), **fields}))
        )

    def run(self, rounds: Rounds) -> History:
        while self.step(rounds):
            pass
        return History.of(self.records)

    def step(self, rounds: Rounds) -> bool:
        if not self.over and len(self.live) < self.lanes:
            found = rounds.propose()
            if isinstance(found, Proposal):
                self.write("suggest", **found.record())
                self.live.append(found)
                return True
            if found is None:
                self.over = True
                if rounds.exhausted:
                    self.write("exhausted")
            else:
                assert isinstance(found, Wait) and self.live, "nothing runs and nothing comes"
        if not self.live:
            return False
        trial = self.live.pop(self.rng.randrange(len(self.live)))
        self.write("start", trial=trial.trial, attempt=1, lane="0")
        failed = self.rng.random() < self.effect.get("fail", 0.0)
        if not failed:
            for epoch in (1, 2):
                value = 80 + self.effect.get(trial.params[ARM], 0.0) + self.noise.gauss(0, 0.4) + epoch
                rounds.report(trial.trial, epoch, value)
                self.write("report", trial=trial.trial, epoch=epoch, metrics={"score": value})
        rounds.end(trial.trial, "failed" if failed else "finished")
        self.write("end", trial=trial.trial, status="failed" if failed else "finished", reason=None)
        return True


def test_every_arm_gets_a_replicate_before_any_gets_the_next() -> None:
    spec = study(FIXED)
    rounds = Rounds(spec)
    found = list(iter(rounds.propose, None))
    assert all(isinstance(p, Proposal) for p in found)
    cells = [(p.params[ARM], p.replicate) for p in found]  # type: ignore[union-attr]
    assert cells == [(label, seed) for seed in range(4) for label in spec.arms]
    assert [p.number for p in found] == list(range(12))  # type: ignore[union-attr]
    assert not rounds.exhausted


def test_extending_adds_replicates_of_every_arm() -> None:
    spec = study(FIXED)
    history = Engine(spec, {}, 0).run(Rounds(spec))
    assert history.done and history.total == 12
    history.add({"kind": "extend", "time": 0.0, "samples": 3})
    rounds = Rounds(spec, samples=history.samples)
    rounds.replay(history)
    more = list(iter(rounds.propose, None))
    assert [(p.params[ARM], p.replicate) for p in more] == [(label, 4) for label in spec.arms]  # type: ignore[union-attr]
    assert not history.done


def test_a_sequential_study_closes_what_is_clear_and_goes_on_with_the_rest() -> None:
    spec = study(DECIDE)
    history = Engine(spec, {"gamma=1.0": 8.0}, 1).run(Rounds(spec))
    count = {label: sum(t.params[ARM] == label for t in history.trials.values()) for label in spec.arms}
    assert 3 <= count["gamma=1.0"] < count["gamma=2.0"] == count["gamma=0.1"] == 9
    said = {arm.label: arm.verdict for arm in conclude(spec, history).arms}
    assert said["gamma=1.0"].outcome == "better" and said["gamma=1.0"].pairs == count["gamma=1.0"]  # type: ignore[union-attr]
    assert said["gamma=2.0"].outcome == "open" and said["gamma=2.0"].reason == "exhausted"  # type: ignore[union-attr]


def test_a_study_whose_answers_are_all_there_ends_early_and_is_done() -> None:
    spec = study(DECIDE)
    engine = Engine(spec, {"gamma=1.0": 30.0, "gamma=2.0": -30.0}, 2)
    rounds = Rounds(spec)
    history = engine.run(rounds)
    assert rounds.exhausted and history.exhausted and history.done
    assert len(history.trials) < 27
    results = conclude(spec, history)
    assert [arm.verdict and arm.verdict.outcome for arm in results.arms] == [None, "better", "worse"]
    assert all(arm.waiting == 0 for arm in results.arms)


def test_precision_stops_at_the_wanted_width() -> None:
    spec = study(PRECISE)
    results = conclude(spec, Engine(spec, {}, 3).run(Rounds(spec)))
    for arm in results.arms[1:]:
        assert arm.verdict is not None and arm.verdict.stopped
        assert arm.verdict.reason == "exhausted" or arm.verdict.interval.half_width <= 1.0


@pytest.mark.parametrize("raw", [FIXED, DECIDE, PRECISE])
@pytest.mark.parametrize("fail", [0.0, 0.3])
def test_a_rebuilt_one_goes_on_as_the_one_before(raw: dict[str, Any], fail: float) -> None:
    """At every prefix of the records: what the next proposal is does not depend on who asks."""
    spec = study(raw)
    for seed in range(3):
        engine = Engine(spec, {"gamma=1.0": 1.5, "fail": fail}, seed)
        rounds = Rounds(spec)
        while True:
            rebuilt = Rounds(spec)
            rebuilt.replay(History.of(engine.records))
            before = len(engine.records)
            going = engine.step(rounds)
            new = [r for r in engine.records[before:] if r["kind"] == "suggest"]
            if len(engine.live) <= engine.lanes and new:
                again = rebuilt.propose()
                assert isinstance(again, Proposal)
                assert json.loads(json.dumps(again.record())) == {
                    k: v for k, v in new[0].items() if k not in ("kind", "time")
                }
            if not going:
                break
        assert History.of(engine.records).done


def test_every_distinct_teacher_is_prepared() -> None:
    raw = {**GAMMA, "design": "compare", "factors": None}
    raw["arms"] = {"none": {"method": "moco"}, "a": {}, "b": {"teacher.train.epochs": 3}, "c": {"gamma": 1.0}}
    spec = study(raw)
    assert representative(spec).teacher is not None
    epochs = [t.teacher.train.epochs for t in to_prepare(spec) if t.teacher and t.teacher.train]
    assert sorted(epochs) == [2, 3] and len(to_prepare(spec)) == 2
    alone = study({**raw, "base": {**BASE, "method": "moco"}, "arms": {"a": {}, "b": {"temperature": 0.3}}})
    assert [t.teacher for t in to_prepare(alone)] == [None]


def test_waiting_for_a_round_is_not_the_end_of_the_search(tmp_path: Path) -> None:
    spec = study(DECIDE)
    rounds = Rounds(spec)
    with Ledger.create(tmp_path / "s") as ledger:
        record = Recorder(ledger, History())
        empty: dict[str, Any] = {"sampler": {}, "scheduler": {}, "versions": {}, "source": None}
        record("sweep", spec=spec.model_dump(mode="json"), spec_hash=spec.hash(), **empty)
        search = LedgerSearch(rounds, record, lambda: 99, lambda _: None, "mailbox", "raykd")  # type: ignore[arg-type,return-value]
        first = [search._next_name() for _ in range(9)]  # three rounds of three arms, up to the first look
        assert None not in first and len(set(first)) == 9
        assert search._next_name() is None and not search.is_finished()
        for name in first:
            assert name is not None
            rounds.report(name, 2, 80.0 + 9 * (record.history.trials[name].params[ARM] == "gamma=1.0"))
            assert search._next_name() is None and not search.is_finished()
            rounds.end(name, "finished")
            record("end", trial=name, status="finished", reason=None)
        again = search._next_name()
        assert again is not None and record.history.trials[again].replicate == 3
        assert not record.history.exhausted
