"""Students over a limit, or too small for the images: refused before they train, and the sampler learns."""

from __future__ import annotations

from typing import Any

import pytest
from optuna.trial import TrialState
from proposing import Driver, play, states, sweep

from raykd.console.sizes import refused_last
from raykd.console.wording import standing
from raykd.records.history import History
from raykd.records.tables import trials_table
from raykd.records.views import best
from raykd.report.size_section import sizes
from raykd.searching import proposer as module
from raykd.searching.proposer import Proposal, Proposer, Repeat, Wait
from raykd.searching.refusals import UNFIT
from raykd.spec.search import SearchSpec
from raykd.spec.size_sections import LimitsSpec
from raykd.spec.validate import validate
from trainables.core.errors import UserError
from trainables.networks.sizes import student_size
from trainables.spec.trial import ModelSpec

WIDTH = "student.options.width"
AXES: dict[str, Any] = {WIDTH: {"uniform": [0.05, 1]}, "lr": {"log": [1e-3, 1e-1]}}
LIMIT = student_size(ModelSpec(arch="raykd/resnet9", options={"width": 0.2}), 16).params


def limited(sampler: str = "tpe", axes: dict[str, Any] = AXES, **change: Any) -> SearchSpec:
    """A search over the width of a student, of which about a sixth is within the limit."""
    start = {
        "method": "moco",
        "preset": "digits",
        "student": {"arch": "raykd/resnet9"},
        "limits": {"params": LIMIT},
    }
    return sweep(sampler, **{**start, "axes": axes, "samples": 12, **change})


def refused(driver: Driver) -> list[dict[str, Any]]:
    return [r for r in driver.records if r["kind"] == "repeat" and r.get("over")]


@pytest.mark.parametrize("sampler", ["tpe", "random", "nsgaii"])
def test_what_is_over_the_limit_never_trains_and_costs_no_sample(sampler: str) -> None:
    driver, proposer = play(limited(sampler, samples=6))
    assert len(driver.done) == 6
    for proposal in driver.done:
        size = student_size(ModelSpec(arch="raykd/resnet9", options={"width": proposal.params[WIDTH]}), 16)
        assert size.params <= LIMIT and proposal.size == size._asdict()
    over = refused(driver)
    assert over and all(r["trial"] is None and len(r["name"]) == 8 for r in over)
    assert all(r["over"] == {"params": r["size"]["params"] / LIMIT - 1} for r in over)
    assert "are over `limits: {params:" in over[0]["reason"]
    assert states(driver.resumed()) == states(proposer), "a resumed search knows the same"


def test_tpe_learns_where_the_limit_is() -> None:
    driver, proposer = play(limited(samples=20))
    told = [t for t in proposer.study.get_trials() if t.constraints]
    assert {t.state for t in told} == {TrialState.PRUNED} and all(t.constraints["params"] > 0 for t in told)
    numbers = [r["number"] for r in refused(driver)]
    assert sum(number in numbers for number in range(10)) >= 5, "at random five sixths are over it"
    by_chance, _ = play(limited("random", samples=20))
    assert 2 * len(numbers) < len(refused(by_chance))


def test_a_search_that_finds_nothing_more_ends_and_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "REFUSALS_IN_A_ROW", 20)
    within = student_size(ModelSpec(arch="raykd/resnet9", options={"width": 0.1}), 16).params
    axes = {WIDTH: {"uniform": [0.1, 0.9]}}
    spec = limited("random", axes, points=[{WIDTH: 0.1}], limits={"params": within})
    driver, proposer = play(spec)
    assert proposer.exhausted and len(driver.done) == 1
    said = refused_last(driver.history)
    assert said is not None and said.startswith("the last 20 proposals were refused") and "limits" in said
    first = History.of([r for r in driver.records if r["kind"] != "repeat"])
    assert refused_last(first) is None, "then it is the space that holds no more"
    assert not driver.resumed().propose()


def test_a_grid_goes_through_however_much_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "REFUSALS_IN_A_ROW", 2)
    axes = {WIDTH: [0.9, 0.8, 0.7, 0.6, 0.1], "lr": [0.01]}
    driver, _ = play(limited("grid", axes, samples=5, limits={"params": 100_000}))
    assert [p.params[WIDTH] for p in driver.done] == [0.1] and len(refused(driver)) == 4


def test_a_student_that_cannot_take_the_images_is_refused_and_the_search_goes_on() -> None:
    spec = limited(
        "grid", {"student.arch": ["raykd/resnet9", "vit_tiny_patch16_224"]}, limits=None, samples=2
    )
    (remark,) = [r for r in validate(spec) if "vit_tiny" in r]
    assert "cannot take images of 16 px" in remark and "are refused" in remark
    driver, _ = play(spec)
    (record,) = refused(driver)
    assert record["over"] == {UNFIT: 1.0} and "axes.student.arch" in record["reason"]


@pytest.mark.parametrize(
    ("axes", "limits", "field"),
    [
        (
            {"student.arch": ["raykd/resnet9", "raykd/resnet8"]},
            None,
            "axes.student.arch",
        ),  # a slip of the pen
        (
            {"student.arch": ["vit_tiny_patch16_224", "raykd/resnet9"]},
            None,
            "axes.student.arch",
        ),  # stands for all
        ({WIDTH: [0.5, 40]}, None, f"axes.{WIDTH}"),
        ({WIDTH: [0.5, 0.9]}, {"params": 1000}, "limits.params"),
        ({WIDTH: [0.5, 0.9]}, {"macs": 1000}, "limits.macs"),
    ],
)
def test_what_cannot_be_meant_is_refused_before_anything_starts(axes: Any, limits: Any, field: str) -> None:
    with pytest.raises(UserError) as error:
        validate(limited("random", axes, limits=limits))
    assert error.value.field == field


def test_a_limit_of_latency_waits_for_the_measurement() -> None:
    spec = limited("random", limits={"latency": "3ms"}, samples=4)
    assert spec.latency is not None and spec.needs_latency, "it is measured without being asked for"
    known: dict[float, float] = {}
    asked: list[float] = []

    def latency(trial: Any) -> float | None:
        width = trial.student.options["width"]
        asked.append(width)
        return known.get(width)

    proposer = Proposer(spec)
    proposer.measure_by(latency)
    found: list[Any] = []
    while sum(isinstance(one, Proposal) for one in found) < 4:
        one = proposer.propose()
        if isinstance(one, Wait):
            assert isinstance(proposer.propose(), Wait) and asked[-1] == asked[-2], "of the same student"
            known[asked[-1]] = 6 * asked[-1]
        else:
            found.append(one)
    for one in found:
        assert isinstance(one, Repeat) == (6 * one.params[WIDTH] > 3)
        assert isinstance(one, Proposal) or "latency of" in one.reason
    assert [one.number for one in found] == list(range(len(found)))


def test_tables_and_pages_show_them() -> None:
    driver, _ = play(limited())
    history = driver.history
    assert f"{len(history.refused)} configurations refused" in standing(history)
    rows = trials_table(history).to_pylist()
    assert [row["status"] for row in rows].count("refused") == len(history.refused) > 0
    assert all(row["params"] > LIMIT and row["reason"] for row in rows if row["status"] == "refused")
    section = sizes(history)
    assert section is not None and f"{len(history.refused)} configurations refused" in str(section)
    assert best(history)["size"]["params"] <= LIMIT


COUNTS = {"5M": 5e6, "1.2G": 1.2e9, "800k": 8e5, 5_000_000: 5e6, "5e6": 5e6, "5_000_000": 5e6, "4.2 M": 4.2e6}


@pytest.mark.parametrize(("written", "value"), COUNTS.items())
def test_counts_are_read(written: Any, value: int) -> None:
    assert LimitsSpec(params=written).params == value


@pytest.mark.parametrize(
    ("written", "value"), [("20ms", 20), ("0.5s", 500), ("800us", 0.8), ("800 µs", 0.8), (20, 20), (0.5, 0.5)]
)
def test_latencies_are_read(written: Any, value: float) -> None:
    assert LimitsSpec(latency=written).latency == pytest.approx(value)


def test_limits_are_recorded_as_numbers_and_read_again() -> None:
    spec = limited(limits={"params": "5M", "latency": "20ms"})
    recorded = spec.model_dump(mode="json")
    assert recorded["limits"] == {"params": 5_000_000, "macs": None, "latency": 20.0}
    assert SearchSpec.model_validate(recorded).limits == spec.limits
    assert "limits" not in limited(limits={}).model_dump(mode="json")
