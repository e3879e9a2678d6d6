"""The latencies of a sweep: each student once, at the end or when the search waits, kept in the ledger."""

from __future__ import annotations

import time
from collections.abc import Iterator
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
from raykd.records.tables import trials_table
from raykd.report.size_section import sizes
from raykd.runs.latencies import Latencies, check_latency, unmeasured
from raykd.searching.proposer import Proposer
from raykd.spec.search import SearchSpec, build_sweep
from raykd.spec.sections import WorkersSpec
from raykd.storage.open_storage import open_sweep
from trainables.core.errors import SweepFailed, UserError

AXES = {"student.arch": ["test_resnet", "test_efficientnet"], "lr": {"log": [1e-3, 1e-1]}}
NODE = {"Alive": True, "Resources": {"CPU": 2.0}}


class Pool:
    """A pool whose lanes measure at once, or fail."""

    broken, stopping = None, False

    def __init__(self, failed: str = "") -> None:
        self.ran: list[Any] = []
        self.failed = failed

    def run(self, task: Any, on_report: Any) -> None:
        self.ran.append(task)
        if self.failed:
            raise SweepFailed(self.failed)
        found = {"median_ms": 2.0 + len(self.ran), "low_ms": 2.0, "high_ms": 9.0, "passes": 10.0, "busy": 1.0}
        on_report(Message(epoch=1, metrics=found, note="host, a CPU"))


@pytest.fixture
def spec() -> SearchSpec:
    return a_sweep(AXES, 8, latency={"batch": 4})


@pytest.fixture
def recorder(tmp_path: Path, spec: SearchSpec) -> Iterator[Recorder]:
    with ledger(tmp_path / "known", spec) as said:
        found = Recorder(said, History.of(Ledger.read(tmp_path / "known")))
        proposer = Proposer(spec)
        while (proposal := proposer.propose()) is not None:
            found("suggest", **proposal.record())
        yield found


def made(spec: SearchSpec, recorder: Recorder, pool: Any, folder: Path) -> tuple[Latencies, list[str]]:
    warned: list[str] = []
    console = Console()
    console.warn = warned.append  # type: ignore[method-assign]
    return Latencies(spec, recorder, pool, console, open_sweep(folder / "known")), warned


def test_each_student_is_measured_once_behind_all_trials(
    tmp_path: Path, spec: SearchSpec, recorder: Recorder
) -> None:
    pool, history = Pool(), recorder.history
    assert len(unmeasured(spec, history)) == 2
    latencies, _ = made(spec, recorder, pool, tmp_path)
    latencies.measure_rest()
    assert [(t.background, t.quiet, t.asked) for t in pool.ran] == [
        (True, True, {"device": "cpu", "batch": 4, "threads": 1})
    ] * 2
    again = History.of(Ledger.read(tmp_path / "known"))
    assert not unmeasured(spec, again) and not unmeasured(a_sweep(AXES, 8), History())
    for found in (history, again):
        by_student = {t.config["student.arch"]: t.size["latency"] for t in found.trials.values()}
        assert sorted(by_student.values()) == [3.0, 4.0]
        table = trials_table(found).to_pylist()
        assert {(row["latency_ms"], row["latency_low_ms"], row["latency_high_ms"]) for row in table} == {
            (3.0, 2.0, 9.0),
            (4.0, 2.0, 9.0),
        }
    section = sizes(again)
    assert section is not None and "[2, 9]" in str(section) and "batches of 4" in str(section)
    latencies.measure_rest()
    assert len(pool.ran) == 2, "those in the ledger are not measured again"


def test_the_search_waits_for_the_latency_that_it_needs(
    tmp_path: Path, spec: SearchSpec, recorder: Recorder
) -> None:
    pool = Pool()
    latencies, _ = made(spec, recorder, pool, tmp_path)
    trial = next(iter(spec.trial_of_each()))
    until(lambda: latencies.of(trial) is not None)
    assert latencies.of(trial) == 3.0
    assert [(task.background, task.quiet) for task in pool.ran] == [(False, True)]


def test_a_latency_that_cannot_be_measured_ends_what_waits_for_it_and_nothing_else(
    tmp_path: Path, spec: SearchSpec, recorder: Recorder
) -> None:
    latencies, warned = made(spec, recorder, Pool("latency: a bug"), tmp_path)
    latencies.measure_rest()
    assert len(warned) == 2 and all("a bug" in text for text in warned)
    trial = next(iter(spec.trial_of_each()))
    with pytest.raises(SweepFailed, match="a bug"):
        while latencies.of(trial) is None:
            time.sleep(0.01)


@pytest.mark.parametrize(
    ("asked", "field"), [({"threads": 3}, "latency.threads"), ({"device": "gpu"}, "latency.device")]
)
def test_what_no_node_can_measure_is_refused_before_anything_starts(asked: dict, field: str) -> None:
    with pytest.raises(UserError) as error:
        check_latency(a_sweep(AXES, 2, latency=asked), WorkersSpec(), [NODE])
    assert error.value.field == field
    check_latency(a_sweep(AXES, 2, latency={"threads": 2}), WorkersSpec(), [NODE])


def test_sweeps_without_it_are_recorded_as_ever() -> None:
    spec = a_sweep(AXES, 2)
    assert "latency" not in spec.model_dump(mode="json")
    asked = a_sweep(AXES, 2, latency="cpu")
    assert build_sweep(asked.model_dump(mode="json")).latency == asked.latency is not None
    assert asked.hash() != spec.hash()
