"""Rounds of replicates: order, looks, closing, and that a rebuilt one goes on as the one before."""

from __future__ import annotations

import json
from pathlib import Path
from random import Random
from typing import Any

import pytest
import torch
from simulated import Engine
from simulated_study import SimulatedStudy
from studies import BASE, GAMMA

from raykd.ablation.conclusions import conclude
from raykd.ablation.rounds import Rounds, rounds_used
from raykd.ablation.study import build_study
from raykd.console.live import Console
from raykd.records.history import History
from raykd.records.ledger import Ledger
from raykd.records.recorder import Recorder
from raykd.runs.drive import Drive
from raykd.runs.references import representative, to_prepare
from raykd.runs.study_plan import plan_study
from raykd.runs.sweep import Place, resume
from raykd.searching.algorithm import LedgerSearch
from raykd.searching.proposer import Proposal
from raykd.spec.arms import ARM
from raykd.spec.study import StudySpec
from raykd.storage.open_storage import open_sweep
from trainables.core.errors import UserError

torch.set_num_threads(1)

FIXED = {**GAMMA, "factors": {"gamma": [0.1, 1.0, 2.0]}, "replicates": 4}
DECIDE = {**FIXED, "replicates": None, "decide": True, "max_replicates": 9}
PRECISE = {**FIXED, "replicates": None, "precision": 1.0, "max_replicates": 9}


def study(raw: dict[str, Any]) -> StudySpec:
    return build_study({k: v for k, v in raw.items() if v is not None}, Path("nowhere"))


def played(spec: StudySpec, effect: dict[str, float], seed: int) -> SimulatedStudy:
    """A study that has not begun: arms have these effects, and share `fail` of all trials fails."""

    def score(arm: str, replicate: int) -> float | None:
        rng = Random(f"{seed} {arm} {replicate}")
        if rng.random() < effect.get("fail", 0.0):
            return None
        return 80 + effect.get(arm, 0.0) + rng.gauss(0, 0.4)

    return SimulatedStudy(spec, score, order=Random(seed))


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
    history = played(spec, {}, 0).run()
    assert history.done and history.total == 12
    history.add({"kind": "extend", "time": 0.0, "samples": 3})
    rounds = Rounds(spec, samples=history.samples)
    rounds.replay(history)
    more = list(iter(rounds.propose, None))
    assert [(p.params[ARM], p.replicate) for p in more] == [(label, 4) for label in spec.arms]  # type: ignore[union-attr]
    assert not history.done


def test_a_sequential_study_closes_what_is_clear_and_goes_on_with_the_rest() -> None:
    spec = study(DECIDE)
    history = played(spec, {"gamma=1.0": 8.0, "gamma=2.0": -0.5}, 1).run()
    count = {label: sum(t.params[ARM] == label for t in history.trials.values()) for label in spec.arms}
    assert 3 <= count["gamma=1.0"] < count["gamma=2.0"] == count["gamma=0.1"] <= 9
    said = {arm.label: arm.verdict for arm in conclude(spec, history).arms}
    assert said["gamma=1.0"].outcome == "better" and said["gamma=1.0"].pairs == count["gamma=1.0"]  # type: ignore[union-attr]
    assert said["gamma=2.0"].outcome == "worse" and said["gamma=2.0"].reason == "sign"  # type: ignore[union-attr]


def test_a_study_gives_up_what_will_not_be_decided_by_its_end() -> None:
    spec = study(DECIDE)
    history = played(spec, {"gamma=1.0": 8.0}, 1).run()
    verdict = conclude(spec, history).arms[2].verdict
    assert verdict is not None and (verdict.outcome, verdict.reason) == ("open", "futile")
    assert 3 <= verdict.pairs == sum(t.params[ARM] == "gamma=2.0" for t in history.trials.values()) < 9


def test_a_study_whose_answers_are_all_there_ends_early_and_is_done() -> None:
    spec = study(DECIDE)
    rounds = Rounds(spec)
    history = played(spec, {"gamma=1.0": 30.0, "gamma=2.0": -30.0}, 2).run(rounds)
    assert rounds.exhausted and history.exhausted and history.done
    assert len(history.trials) < 27
    results = conclude(spec, history)
    assert [arm.verdict and arm.verdict.outcome for arm in results.arms] == [None, "better", "worse"]
    assert all(arm.waiting == 0 for arm in results.arms)


def test_the_plan_of_an_extended_study_counts_the_extension(tmp_path: Path) -> None:
    spec = study(FIXED)
    engine = played(spec, {}, 4)
    engine.run()
    assert plan_study(spec, open_sweep(tmp_path), engine.history)["trials"] == spec.samples
    engine.extend(2)
    planned = plan_study(spec, open_sweep(tmp_path), engine.history)
    assert planned["trials"] == spec.samples + 2 * len(spec.arms) == engine.history.samples
    assert planned["most_epochs"] == planned["trials"] * spec.epochs


def test_precision_stops_at_the_wanted_width() -> None:
    spec = study(PRECISE)
    results = conclude(spec, played(spec, {}, 3).run())
    for arm in results.arms[1:]:
        assert arm.verdict is not None and arm.verdict.stopped
        assert arm.verdict.reason == "exhausted" or arm.verdict.interval.half_width <= 1.0


def test_precision_can_be_extended_where_intervals_are_too_wide() -> None:
    spec = study({**PRECISE, "precision": 0.5, "max_replicates": 4})
    engine = played(spec, {"gamma=1.0": 1.0}, 5)
    before = conclude(spec, engine.run())
    assert [arm.verdict and arm.verdict.reason for arm in before.arms] == [None, "exhausted", "exhausted"]
    after = conclude(spec, engine.run(engine.extend(12)))
    assert after.rules.replicates == 16 and after.rules.ends == (4,) and engine.history.done
    for arm in after.arms[1:]:
        assert arm.verdict is not None and arm.verdict.pairs > 4 and arm.verdict.interval.half_width <= 0.5
    assert any("extended by 12 replicates after 4: intervals hold if their width" in n for n in after.notes)


def test_extending_leaves_alone_what_was_precise_enough() -> None:
    spec = study({**PRECISE, "precision": 1.5, "max_replicates": 4})
    scores = {"gamma=0.1": [0.0] * 8, "gamma=1.0": [1.0, 1.1, 0.9] * 3, "gamma=2.0": [0.0, 4.0, 1.0, 3.0] * 2}
    engine = SimulatedStudy(spec, lambda arm, seed: 80 + scores[arm][seed])
    before = conclude(spec, engine.run()).arms
    after = conclude(spec, engine.run(engine.extend(4))).arms
    assert before[1].verdict == after[1].verdict and before[1].verdict.reason == "precision"  # type: ignore[union-attr]
    assert [arm.finished for arm in before] == [4, 3, 4] and [arm.finished for arm in after] == [8, 3, 8]


@pytest.mark.parametrize(
    ("raw", "said"),
    [
        (DECIDE, r"has spent all of the error.*alpha = 0.05.*`max_replicates`.*up to 0.1 of all studies"),
        ({**PRECISE, "precision": 50.0}, r"within ± 50 points already.*a smaller `precision`"),
    ],
)
def test_more_replicates_that_would_answer_nothing_are_refused(
    raw: dict[str, Any], said: str, tmp_path: Path
) -> None:
    engine = played(study(raw), {}, 6)
    engine.run()
    with Ledger.create(tmp_path / "s") as ledger:
        for entry in engine.records:
            head = {"spec_hash": "", "source": None, "sampler": {}, "scheduler": {}, "versions": {}}
            fields = {k: v for k, v in entry.items() if k not in ("kind", "time")}
            ledger.append(entry["kind"], **fields, **(head if entry["kind"] == "sweep" else {}))
    with pytest.raises(UserError, match=said):
        resume(Place(open_sweep(tmp_path / "s")), Console(), extend=2)


@pytest.mark.parametrize("raw", [FIXED, DECIDE, PRECISE])
@pytest.mark.parametrize("fail", [0.0, 0.3])
def test_a_rebuilt_one_goes_on_as_the_one_before(raw: dict[str, Any], fail: float) -> None:
    """At every prefix of the records: what the next proposal is does not depend on who asks."""
    spec = study(raw)
    for seed in range(3):
        engine = played(spec, {"gamma=1.0": 1.5, "fail": fail}, seed)
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


@pytest.mark.parametrize("raw", [FIXED, DECIDE, PRECISE])
@pytest.mark.parametrize("effect", [0.0, 1.5, 30.0])
def test_the_records_show_which_rounds_looks_have_used(raw: dict[str, Any], effect: float) -> None:
    spec = study(raw)
    for seed in range(3):
        engine = played(spec, {"gamma=1.0": effect, "gamma=2.0": -effect, "fail": 0.2}, seed)
        rounds, going = Rounds(spec), True
        while going:
            going = engine.step(rounds)
            used, taken = rounds_used(spec, engine.history), max(rounds._decided, default=0)
            trials = engine.history.trials.values()
            assert [t.replicate < used for t in trials] == [t.replicate < taken for t in trials]
        assert (used > 0) is bool(spec.study.looks)


def test_a_second_try_leaves_the_looks_that_were_taken_as_they_were(tmp_path: Path) -> None:
    """The last trial before a look fails as those after it do; only the latter are tried again."""
    spec, sweep = study({**DECIDE, "failures_in_a_row": 3}), open_sweep(tmp_path / "s")
    effect = {"gamma=0.1": 0.0, "gamma=1.0": 0.2, "gamma=2.0": 30.0}
    with Ledger.create(sweep) as ledger:
        engine = Engine(ledger, spec)
        decider, driver = engine.begin(), Drive(spec, engine.record, Console(), sweep, {})
        streak, live = driver._streak(), engine._proposer
        decider._on_end = streak.add
        while len(streak.trials) < 4:
            name = engine.next_trial("lane-0")
            assert name is not None and isinstance(live, Rounds)
            trial = engine.history.trials[name]
            if trial.number >= 8:  # from the last trial before the first look on
                decider.end(name, "failed", "it fails")
            for epoch in range(1, 3 if trial.number < 8 else 0):
                decider.hear(name, epoch, {"score": 50 + effect[trial.params[ARM]] + trial.replicate % 2})
        failed = [(t.replicate, t.trial) for t in streak.trials]
        assert [replicate for replicate, _ in failed] == [2, 3, 3, 3]
        assert "3 trials of these will be tried again, once" in driver._try_again(streak.trials)
        assert "a look of the study has counted them as failed" in driver._try_again(streak.trials[:1])
    with Ledger.open(sweep) as ledger:
        engine = Engine(ledger, spec)
        engine.begin()
        assert sorted(engine._waiting) == sorted(name for replicate, name in failed if replicate > 2)
        again = engine._proposer
        assert isinstance(again, Rounds) and again._open(3) == live._open(3)
        assert not Drive(spec, engine.record, Console(), sweep, {})._streak().trials, (
            "it does not stop at once"
        )


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
        search = LedgerSearch(rounds, record, lambda: 99, lambda _: None, "broker", "raykd")  # type: ignore[arg-type,return-value]
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
