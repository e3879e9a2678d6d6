"""`proxy: {audit: …}`: stopped trials that run on, the same for every driver, and what is made of them."""

from __future__ import annotations

import json
import math
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from histories import AXES, a_sweep
from hypothesis import given, settings
from hypothesis import strategies as st
from invariants import check
from ledger_records import end, record, report
from simulated import drive

from raykd.console.answers import audit_line
from raykd.records.history import History
from raykd.records.ledger import LEDGER, Ledger, as_line, encode
from raykd.records.recorded_spec import spec_of
from raykd.records.tables import trials_table, write_tables
from raykd.report.elements import Figure
from raykd.report.proxy_section import proxy
from raykd.runs.plan import audit_cost
from raykd.searching.decisions import in_audit
from raykd.searching.next_proxy import ENOUGH, advice, advice_of
from raykd.searching.proxy_audit import audit, ended
from raykd.searching.warm_start import take_over
from raykd.spec.schedulers import SCHEDULERS
from raykd.spec.search import SearchSpec, build_sweep
from trainables.core.errors import UserError

STOPPING = sorted(set(SCHEDULERS) - {"none"})
EPOCHS = 8


def spec(share: float, name: str = "asha", samples: int = 24, **more: Any) -> SearchSpec:
    few = {"min_samples": 1} if name == "median" else {}
    audited = {"proxy": {"audit": share}} if share else {}
    scheduler = {"name": name, "grace": 1, **few}
    common = {
        "sampler": {"name": "tpe", "seed": 5, "n_startup_trials": 4},
        "references": [],
        "baseline": None,
    }
    return a_sweep(AXES, samples, scheduler=scheduler, epochs=EPOCHS, **{**common, **audited, **more})


def said(history: History) -> dict[str, Any]:
    """What was decided about each trial, and how it ended."""
    return {name: (t.number, t.params, t.verdicts, t.audited, t.status) for name, t in history.trials.items()}


@pytest.mark.parametrize("name", STOPPING)
def test_a_search_is_the_same_with_an_audit_but_for_the_trials_that_run_on(name: str, tmp_path: Path) -> None:
    """One lane, so that no trial waits for another: what is proposed and who is stopped does not change."""
    without, audited = (drive(tmp_path / str(share), spec(share, name), lanes=1) for share in (0, 0.5))
    assert [t.params for t in without.trials.values()] == [t.params for t in audited.trials.values()]
    ran_on = 0
    for trial, other in zip(without.trials.values(), audited.trials.values(), strict=True):
        at = other.audited
        assert (at is not None) == (trial.status == "stopped" and in_audit(trial.trial, 0.5, 5))
        if at is None:
            assert (trial.verdicts, trial.status) == (other.verdicts, other.status)
            continue
        ran_on += 1
        assert at == trial.epoch and other.status == "finished" and other.epoch == EPOCHS
        assert {**trial.verdicts, at: "go"} == {e: v for e, v in other.verdicts.items() if e <= at}
    stopped = without.counts()["stopped"]
    assert 0 < ran_on < stopped


@settings(max_examples=12, deadline=None)
@given(name=st.sampled_from(STOPPING), lanes=st.integers(1, 3), cut=st.floats(0, 1))
def test_a_driver_that_goes_on_decides_as_the_one_before(
    tmp_path_factory: pytest.TempPathFactory, name: str, lanes: int, cut: float
) -> None:
    folder, made = tmp_path_factory.mktemp("cut"), spec(0.5, name, samples=12)
    whole = drive(folder / "whole", made, lanes=lanes)
    records = Ledger.read(folder / "whole")
    some = records[: max(2, round(cut * len(records)))]
    (folder / "cut").mkdir()
    (folder / "cut" / LEDGER).write_bytes(b"".join(as_line(encode(one)) for one in some))
    resumed = drive(folder / "cut", made, lanes=lanes)
    if lanes == 1:
        assert said(resumed) == said(whole)
    write_tables(resumed, folder / "cut")
    check(folder / "cut")  # a scheduler and a sampler that never died say the same of all records


def test_where_a_verdict_is_lost_the_end_says_that_a_trial_ran_on(tmp_path: Path) -> None:
    made = spec(1.0, samples=6)
    whole = drive(tmp_path, made, lanes=1)
    records = [r for r in Ledger.read(tmp_path) if not r.get("audit")]
    assert {n: t.audited for n, t in History.of(records).trials.items()} == {
        n: t.audited for n, t in whole.trials.items()
    }
    assert sum(t.audited is not None for t in whole.trials.values()) > 1


def test_a_trial_that_diverges_in_its_audit_is_stopped_and_counts_for_none() -> None:
    from raykd.searching.decisions import Decider

    decider = Decider.of(spec(1.0))
    assert decider.decide("good", 0, 1, 90.0) and decider.decide("weak", 1, 1, 10.0)
    assert decider.audits("weak", 1) and not decider.audits("good", 1)
    assert decider.decide("weak", 1, 2, 11.0), "whatever it scores"
    assert not decider.decide("weak", 1, 3, math.nan)


def test_the_share_is_that_of_the_names_and_another_seed_draws_others() -> None:
    names = [f"{number:08x}" for number in range(4000)]
    drawn = {seed: {name for name in names if in_audit(name, 0.1, seed)} for seed in (0, 1)}
    for those in drawn.values():
        assert len(those) == pytest.approx(400, abs=80)
    assert len(drawn[0] & drawn[1]) == pytest.approx(40, abs=30)
    assert not any(in_audit(name, 0.0, 0) for name in names) and all(in_audit(name, 1.0, 0) for name in names)


def test_a_later_sweep_is_told_what_the_sampler_of_this_one_was(tmp_path: Path) -> None:
    histories = {share: drive(tmp_path / str(share), spec(share), lanes=1) for share in (0, 1)}
    later = build_sweep({**spec(0).model_dump(mode="json"), "name": "later", "warm_start": ["known"]})
    told = [take_over(later, {"known": history}).told for history in histories.values()]
    assert told[0] == told[1] and any(one.status == "stopped" for one in told[0])


def test_the_table_holds_the_epoch_of_the_stop_only_with_an_audit(tmp_path: Path) -> None:
    without, audited = (drive(tmp_path / str(share), spec(share), lanes=1) for share in (0, 0.5))
    assert "audited" not in trials_table(without).column_names
    rows = trials_table(audited).select(["trial", "audited"]).to_pylist()
    assert {row["trial"]: row["audited"] for row in rows} == {n: t.audited for n, t in audited.trials.items()}


# --- the spec ----------------------------------------------------------------------------------------------


def test_a_spec_without_an_audit_is_recorded_as_before_the_field_was_there() -> None:
    plain, none = spec(0), spec(0, proxy={"audit": 0})
    assert "proxy" not in plain.model_dump(mode="json") and none.hash() == plain.hash()
    some = spec(0.1)
    assert some.hash() != plain.hash()
    assert SearchSpec.model_validate(json.loads(json.dumps(some.model_dump(mode="json")))) == some
    with pytest.raises(UserError, match=r"^proxy.audit: .*`scheduler: none` stops none"):
        a_sweep(AXES, 4, scheduler="none", proxy={"audit": 0.1})


@pytest.mark.parametrize("name", STOPPING)
def test_the_plan_says_about_what_an_audit_costs(name: str, tmp_path: Path) -> None:
    assert audit_cost(spec(0, name)) is None
    found = audit_cost(spec(0.5, name, samples=80))
    assert found is not None
    without, audited = (
        sum(t.epoch for t in drive(tmp_path / str(share), spec(share, name, samples=80)).trials.values())
        for share in (0, 0.5)
    )
    assert 0.5 < found["of"] / without < 1.5
    assert 0.5 < found["epochs"] / (audited - without) < 2
    assert "50% of the stopped trials run on" in audit_line(found)


# --- what is made of it ------------------------------------------------------------------------------------


def known(
    share: float, early: Any, trials: int = 200, methods: tuple[str, ...] = ("retro",), **more: Any
) -> tuple[SearchSpec, History]:
    """Trials that end at 300, 301, …; before, they score `early(i)`. The weaker half stops at epoch 1."""
    made = spec(share, samples=trials, **more)
    history = History()
    history.add(record("sweep", spec=made.model_dump(mode="json"), spec_hash=made.hash()))
    for number in range(trials):
        name = f"{number:08x}"
        fields = {"trial": name, "arm": name, "number": number, "replicate": 0, "params": {}, "attrs": {}}
        config = {"method": methods[number % len(methods)], "epochs": EPOCHS}
        history.add(record("suggest", **fields, config=config, origin="sampler"))
        stopped = early(number) < early(trials // 2)
        runs_on = stopped and in_audit(name, share, 5)
        for epoch in (1, 2, 4, EPOCHS) if runs_on or not stopped else (1,):
            value = early(number) if epoch < 4 else 300.0 + number
            history.add(report(name, epoch, value, **{"probe/knn": 300.0 + number}))
            if epoch == 1:
                audited = {"audit": True} if runs_on else {}
                verdict = "go" if runs_on or not stopped else "stop"
                history.add(record("verdict", trial=name, epoch=1, verdict=verdict, **audited))
        history.add(end(name, "finished" if runs_on or not stopped else "stopped"))
    return made, history


def test_each_trial_that_ran_on_counts_for_those_that_did_not() -> None:
    made, history = known(0.2, lambda number: float(number))
    whole = ended(made, history)
    weights = {one.weight for one in whole}
    assert weights == {1.0, 5.0}
    assert sum(one.weight for one in whole) == pytest.approx(200, rel=0.15)
    first = audit(made, history)[0]
    assert (first.stopped, first.audited) == (100, sum(one.weight == 5 for one in whole))
    assert first.found.correlation.value == pytest.approx(1)


def test_the_page_shows_what_ran_on_and_each_method_alone() -> None:
    made, history = known(0.2, lambda number: float(number * 37 % 200), methods=("retro", "seed"))
    rungs = audit(made, history)
    assert all(set(rung.methods) == {"retro", "seed"} for rung in rungs)
    assert sum(of.trials for of in rungs[0].methods.values()) == rungs[0].found.trials
    section = proxy(made, history)
    shown = str([asdict(part) for part in section.parts if not isinstance(part, Figure)])
    ran_on = [trial for trial in history.trials.values() if trial.audited is not None]
    assert f"The scheduler had stopped {len(ran_on)} of these" in shown and "Each counts for 5." in shown
    assert all(trial.trial in shown for trial in ran_on) and "within each method" in shown
    assert all(line in shown for line in advice(made, history))


def test_a_rung_that_predicts_the_end_is_recommended() -> None:
    made, history = known(0.2, lambda number: float(number + number * 37 % 20))
    first, rule = advice(made, history)
    assert first.startswith("ridge_5shot predicts the end well enough from epoch 1 on: rank correlation 0.9")
    assert "`scheduler: {grace: 1}`, as now" in first and str(ENOUGH) in rule
    assert advice_of(history) == [first, rule]


def test_another_probe_is_recommended_where_it_is_ready_earlier() -> None:
    made, history = known(0.5, lambda number: float(number * 37 % 200))
    first, other, _ = advice(made, history)
    assert first.startswith("ridge_5shot predicts the end well enough from epoch 4 on")
    assert "`scheduler: {grace: 4}`, where this sweep has 1" in first
    assert other.startswith("knn does so from epoch 1 on: rank correlation 1.00")
    assert "`probe: {score: knn}`" in other


def test_where_nobody_ran_on_or_too_few_did_nothing_is_recommended() -> None:
    (line,) = advice(*known(0, lambda number: float(number)))
    assert "none of the stopped trials has run on to its end" in line and "`proxy: {audit: 0.1}`" in line
    (line,) = advice(*known(0.3, lambda number: float(number), trials=12))
    assert line.startswith("Too few trials to recommend")
    assert advice_of(known(0, lambda number: float(number))[1]) == []


def test_a_search_that_stops_nothing_needs_no_audit() -> None:
    made, history = known(0, lambda number: float(number), trials=20)
    for trial in history.trials.values():
        trial.status, trial.reports = (
            "finished",
            {e: {"score": 50.0 + trial.number + e} for e in (1, 2, 4, 8)},
        )
    free = spec_of(history).model_copy(update={"scheduler": build_sweep(
        {**made.model_dump(mode="json"), "scheduler": "none"}).scheduler})  # fmt: skip
    (first, _) = advice(free, history)
    assert "from epoch 1 on" in first and "a scheduler with `grace: 1`" in first
