"""The budget of a sweep: counted by lanes that are there, kept in the ledger, and what it buys."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
from histories import a_sweep, ledger
from pools import until

from raykd.console.live import Console
from raykd.lanes.messages import Message
from raykd.records.history import History
from raykd.records.ledger import Ledger
from raykd.records.recorder import Recorder
from raykd.records.views import status
from raykd.runs import budget, budget_forecast
from raykd.runs.auxiliary import BEFORE
from raykd.runs.budget import Meter, check_budget, seconds_left, spent_in_words
from raykd.runs.budget_forecast import buys, surviving
from raykd.runs.changed_spec import as_begun, with_changes
from raykd.runs.references import References
from raykd.spec.budget_section import BudgetSpec
from raykd.spec.schedulers import parse_scheduler
from raykd.spec.search import SearchSpec, build_sweep
from raykd.spec.sections import WorkersSpec
from raykd.storage.open_storage import open_sweep
from trainables.core.errors import UserError

AXES = {"lr": {"log": [1e-3, 1e-1]}}


class Pool:
    """A pool with so many lanes."""

    broken, stopping = None, False

    def __init__(self, lanes: int) -> None:
        self.state: dict[str, Any] = {f"lane-{n}": {} for n in range(lanes)}

    def no_more_trials(self) -> None: ...

    def run(self, task: Any, on_report: Any) -> None:
        if task.action == "raw_pixels":
            time.sleep(3600)
        on_report(Message(epoch=1, metrics={"score": 1.0, "epochs": 3.0}))


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(budget, "_EVERY_S", 0.01)
    monkeypatch.setattr(budget, "_RECORD_S", 0.05)


@pytest.mark.usefixtures("quick")
def test_it_counts_lanes_that_are_there_and_goes_on_from_the_ledger(tmp_path: Path) -> None:
    spec = a_sweep(AXES, 2, budget={"cpu_hours": 0.9 / 3600})
    with ledger(tmp_path / "known", spec) as said:
        recorder, pool = Recorder(said, History.of(Ledger.read(tmp_path / "known"))), Pool(2)
        began = time.monotonic()
        with Meter(spec, WorkersSpec(), recorder, pool) as meter:  # type: ignore[arg-type]
            until(lambda: recorder.history.lane_s > 0.2)
            assert not meter.spent or time.monotonic() - began > 0.4
            pool.state.clear()
            time.sleep(0.05)
            counted = recorder.history.lane_s
        passed = time.monotonic() - began
        assert counted <= recorder.history.lane_s <= 2 * passed
        recorder.sync()
        recorder.close()
    again = History.of(Ledger.read(tmp_path / "known"))
    assert again.lane_s == recorder.history.lane_s > 0.2
    assert status(again, tmp_path / "known")["lane_s"] == again.lane_s
    assert seconds_left(spec.spends, WorkersSpec(), again.lane_s) == pytest.approx(0.9 - again.lane_s)
    more = again.snapshot()
    more.add({"kind": "spent", "time": 1e9, "lane_s": 5.0})
    assert Meter(spec, WorkersSpec(), Recorder(None, more), Pool(0)).spent  # type: ignore[arg-type]


def test_a_sweep_without_a_budget_counts_and_records_nothing(tmp_path: Path) -> None:
    spec = a_sweep(AXES, 2)
    assert "budget" not in spec.model_dump(mode="json") and spec.spends is None
    with ledger(tmp_path / "known", spec) as said:
        recorder = Recorder(said, History.of(Ledger.read(tmp_path / "known")))
        with Meter(spec, WorkersSpec(), recorder, Pool(5)) as meter:  # type: ignore[arg-type]
            assert not meter.spent
    assert [r["kind"] for r in Ledger.read(tmp_path / "known")] == ["sweep"]


def test_hours_are_of_lanes_times_what_a_lane_takes() -> None:
    workers = WorkersSpec(count=2, cpus=4, gpus=0.5)
    assert BudgetSpec(gpu_hours=3).lane_seconds(workers) == 3 * 3600
    assert BudgetSpec(cpu_hours=16).lane_seconds(workers) == 2 * 3600
    assert BudgetSpec(gpu_hours=3, cpu_hours=16).lane_seconds(workers) == 2 * 3600, "the nearer one"
    assert spent_in_words(BudgetSpec(gpu_hours=40), workers, 36_000.0) == "10 of 40 GPU-hours"
    assert seconds_left(None, workers, 1e9) == float("inf")


@pytest.mark.parametrize(
    ("written", "hours"), [(40, 40), ("40h", 40), ("2d", 48), ("90m", 1.5), (0.25, 0.25)]
)
def test_hours_are_read(written: Any, hours: float) -> None:
    spec = a_sweep(AXES, 2, budget={"cpu_hours": written})
    assert spec.budget is not None and spec.budget.cpu_hours == hours
    assert SearchSpec.model_validate(spec.model_dump(mode="json")).budget == spec.budget


def test_gpu_hours_need_gpus() -> None:
    node = {"Alive": True, "Resources": {"CPU": 2.0}}
    spec = a_sweep(AXES, 2, budget={"gpu_hours": 4})
    with pytest.raises(UserError, match=r"budget\.gpu_hours: workers have no GPU"):
        check_budget(spec, WorkersSpec(), [node])
    check_budget(spec, WorkersSpec(), [{"Alive": True, "Resources": {"CPU": 2.0, "GPU": 1.0}}])


def test_more_may_be_granted_while_a_sweep_goes_on() -> None:
    then, now = a_sweep(AXES, 2, budget={"cpu_hours": 4}), a_sweep(AXES, 2, budget={"cpu_hours": 8})
    assert then.hash() != now.hash() and as_begun(now, then).hash() == then.hash()
    assert with_changes(then, now).spends == now.budget
    assert with_changes(then, a_sweep(AXES, 2)).spends is None


def test_references_are_not_waited_for_once_it_is_spent(tmp_path: Path) -> None:
    spec = build_sweep({**a_sweep(AXES, 2).model_dump(mode="json"), "references": ["raw_pixels"]})
    said: list[str] = []
    console = Console()
    console.warn = said.append  # type: ignore[method-assign]
    with ledger(tmp_path / "known", spec) as written:
        recorder = Recorder(written, History.of(Ledger.read(tmp_path / "known")))
        references = References(spec, recorder, Pool(1), console, open_sweep(tmp_path / "known"))  # type: ignore[arg-type]
        references.around(lambda: True, spent=lambda: True)
    assert len(said) == 1 and said[0].startswith("the budget is spent before these: raw_pixels; go on with:")


@pytest.mark.parametrize(
    ("scheduler", "shares"),
    [
        ({"name": "asha", "grace": 1, "factor": 2}, {1: 1, 2: 1 / 2, 4: 1 / 4, 8: 1 / 8}),
        ({"name": "asha", "grace": 3, "factor": 3}, {3: 1, 8: 1 / 3}),
        ({"name": "none"}, {8: 1}),
        ({"name": "median", "grace": 2}, {2: 1, 4: 1 / 2, 8: 1 / 4}),
    ],
)
def test_the_share_of_trials_that_reach_a_rung(scheduler: dict[str, Any], shares: dict[int, float]) -> None:
    assert surviving(parse_scheduler(scheduler), 8) == pytest.approx(shares)


def test_what_it_buys_is_said_before_anything_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(budget_forecast, "_epoch_seconds", lambda spec, trial: 2.0)
    monkeypatch.setattr(
        budget_forecast, "this_machine", lambda: {"Alive": True, "Resources": {"CPU": 2.0, "GPU": 0.0}}
    )
    halving = {"name": "asha", "grace": 1, "factor": 2}
    spec = a_sweep(AXES, 9, budget={"cpu_hours": 1}, scheduler=halving, epochs=4)
    # 1 + 1/2 + 2/4 epochs a trial, of 2 s each. A teacher takes as long as ten whole trials of 4 epochs,
    # while the other lane waits; a baseline as long as one.
    found = buys(spec, [{"trials": 10.0, "when": BEFORE}, {"trials": 1.0, "when": "beside"}])
    assert found["trials"] == pytest.approx((3600 - 21 * 8) / 4) and found["epochs"] == found["trials"] * 2
    assert [(rung["epoch"], rung["trials"]) for rung in found["rungs"]] == [(1, 9), (2, 4.5), (4, 2.25)]
    assert "a budget of 1 CPU-hours, 1 h 00 min of a lane, buys about 860 trials here" in found["lines"][0]
    audited = buys(
        a_sweep(AXES, 9, budget={"cpu_hours": 1}, scheduler=halving, epochs=4, proxy={"audit": 0.5}), []
    )
    # Half of those that are stopped run on: 3 epochs for a half of the trials, 2 for a quarter.
    assert audited["epochs"] / audited["trials"] == 2 + 0.5 * (3 / 2 + 2 / 4)
    large = spec.model_copy(update={"workers": WorkersSpec(count=64)})
    assert buys(large, [])["trials"] is None
