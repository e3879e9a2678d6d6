"""Which trial stands for a sweep when its data is prepared and its references are measured."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from raykd.console.live import Console
from raykd.lanes.messages import Message
from raykd.records.history import History
from raykd.records.ledger import Ledger
from raykd.records.recorder import Recorder
from raykd.runs import auxiliary
from raykd.runs.auxiliary import long_baseline, representative
from raykd.runs.references import References
from raykd.spec.search import build_sweep
from raykd.storage.open_storage import open_storage, open_sweep
from trainables.planning import compute

RAW = {
    "name": "both",
    "preset": "digits",
    "student": {"arch": "test_efficientnet"},
    "teacher": {"arch": "test_resnet", "train": {"method": "moco", "preset": "digits", "epochs": 1}},
    "epochs": 2,
    "samples": 2,
    "axes": {"gamma": {"log": [0.01, 1]}, "lr": {"log": [1e-3, 1e-2]}},
}


def test_among_several_methods_one_with_a_teacher_stands_for_all() -> None:
    trial = representative(build_sweep({**RAW, "method": ["moco", "retro"]}))
    assert trial.method == "retro" and trial.teacher is not None


def test_without_a_teacher_the_first_method_does() -> None:
    alone = {name: value for name, value in RAW.items() if name not in ("teacher", "axes")}
    assert representative(build_sweep({**alone, "method": "moco"})).method == "moco"


def test_a_plan_counts_what_is_trained_beside_the_trials(tmp_path: Path) -> None:
    spec = build_sweep({**RAW, "method": "retro", "baseline": {"method": "moco", "preset": "digits"}})
    teacher, baseline = auxiliary.beside(spec, open_storage(tmp_path))
    assert (teacher["what"], teacher["method"], teacher["epochs"]) == ("teacher", "moco", 1)
    as_run = compute.equal_epochs(representative(spec), spec.baseline_trial())
    assert (baseline["what"], baseline["epochs"], baseline["trials"]) == ("baseline", as_run, 1)
    own = spec.model_copy(update={"baseline": spec.baseline.model_copy(update={"epochs": 7})})  # type: ignore[union-attr]
    (_, row) = auxiliary.beside(own, open_storage(tmp_path))
    assert (row["epochs"], row["trials"]) == (7, 7 / as_run)
    without = spec.model_copy(update={"references": ("untrained",)})
    assert [row["what"] for row in auxiliary.beside(without, open_storage(tmp_path))] == ["teacher"]


def test_a_baseline_much_longer_than_a_trial_is_said_with_the_field() -> None:
    spec = build_sweep({**RAW, "method": "retro"})
    assert long_baseline(10, spec) == []
    (said,) = long_baseline(1459, spec)
    assert said.startswith("baseline: 1459 epochs, 730 times those of a trial")
    assert "--set baseline.epochs=2" in said


class Pool:
    """A pool whose lanes take what they are given, and never come to the end of a baseline."""

    broken = None

    def __init__(self) -> None:
        self.ran: list[tuple[str, bool]] = []

    def run(self, task: Any, on_report: Any) -> None:
        self.ran.append((task.id, task.background))
        if task.id == "baseline":
            time.sleep(3600)
        on_report(Message(epoch=1, metrics={"score": 1.0, "epochs": 1459.0}))


def test_the_baseline_is_work_of_the_background_and_ends_with_the_time_limit(tmp_path: Path) -> None:
    spec = build_sweep({**RAW, "method": "retro", "baseline": {"method": "moco", "preset": "digits"}})
    said: list[str] = []
    console = Console()
    console.warn = said.append  # type: ignore[method-assign]
    with Ledger.create(tmp_path / "both") as ledger:
        recorder = Recorder(ledger, History())
        head = {"spec_hash": spec.hash(), "source": None, "sampler": {}, "scheduler": {}, "versions": {}}
        recorder("sweep", spec=spec.model_dump(mode="json"), **head)
        pool: Any = Pool()
        references = References(spec, recorder, pool, console, open_sweep(tmp_path / "both"))
        began = time.monotonic()
        references.around(lambda: True, began + 1)
        assert time.monotonic() - began < 10
        assert ("baseline", True) in pool.ran
        assert all(not background for name, background in pool.ran if name != "baseline")
        assert {"raw_pixels", "untrained", "teacher"} <= set(recorder.history.references)
    assert [text.partition(":")[0] for text in said] == ["baseline", "the time limit is reached before these"]
    assert "1459 epochs" in said[0] and "baseline; go on with:  raykd resume both" in said[1]
