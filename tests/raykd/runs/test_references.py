"""Which trial stands for a sweep when its data is prepared and its references are measured."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
from studies import METHODS, study

from raykd.ablation.budget import with_costs
from raykd.console.live import Console
from raykd.lanes.messages import Message
from raykd.records.history import History
from raykd.records.ledger import Ledger
from raykd.records.recorder import Recorder
from raykd.runs import auxiliary
from raykd.runs.auxiliary import baseline_remarks, capped, representative, whole_trials
from raykd.runs.changed_spec import as_begun
from raykd.runs.references import References
from raykd.spec.search import SearchSpec, build_sweep
from raykd.storage.open_storage import open_storage, open_sweep
from trainables.core.errors import UserError
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
    assert baseline["flops"] == pytest.approx(compute.trial_flops(representative(spec)), rel=0.5 / as_run)
    assert 0 < teacher["trials"] == teacher["flops"] / compute.trial_flops(representative(spec))
    free = {"method": "moco", "preset": "digits", "epochs": 1000, "cap": "none"}
    (_, row) = auxiliary.beside(
        build_sweep({**RAW, "method": "retro", "baseline": free}), open_storage(tmp_path)
    )
    assert (row["epochs"], row["trials"]) == (1000, 1000 / as_run)
    capped = {**free, "cap": "sweep"}
    for given in (capped, {name: value for name, value in capped.items() if name != "cap"}):
        own = build_sweep({**RAW, "method": "retro", "baseline": given})
        (_, row) = auxiliary.beside(own, open_storage(tmp_path))
        assert (row["asked"], row["epochs"], row["trials"]) == (1000, 2 * as_run, 2), "two trials in all"
    without = spec.model_copy(update={"references": ("untrained",)})
    assert [row["what"] for row in auxiliary.beside(without, open_storage(tmp_path))] == ["teacher"]


def test_a_baseline_much_longer_than_a_trial_is_said_with_the_field() -> None:
    spec = build_sweep({**RAW, "method": "retro"})
    assert baseline_remarks(10, 10, spec) == []
    (said,) = baseline_remarks(1459, 1459, spec)
    assert said.startswith("baseline: 1459 epochs, 730 times those of a trial")
    assert "--set baseline.epochs=2" in said


BASELINE = {"method": "moco", "preset": "digits"}


def test_a_cap_is_the_compute_of_all_trials_and_says_how_to_lift_it() -> None:
    spec = build_sweep({**RAW, "method": "retro", "samples": 10, "seeds": [0, 1], "baseline": BASELINE})
    assert whole_trials(spec) == 20 and spec.baseline is not None and spec.baseline.cap == "sweep"
    assert (capped(59, 3, spec), capped(60, 3, spec), capped(61, 3, spec)) == (59, 60, 60)
    (said,) = baseline_remarks(100, 60, spec)
    assert "more than all 20 trials" in said and "60 epochs (--set baseline.cap=none" in said
    free = build_sweep({**RAW, "method": "retro", "baseline": {**BASELINE, "cap": "none"}})
    assert capped(10**6, 3, free) == 10**6
    two = build_sweep({**RAW, "method": ["moco", "retro"], "axes": {}, "samples": 10, "baseline": BASELINE})
    ours = [compute.trial_flops(trial) for trial in two.trial_of_each()]
    assert whole_trials(two) == pytest.approx(10 * sum(ours) / 2 / max(ours))


def test_of_a_study_the_trials_are_all_replicates_of_all_arms() -> None:
    plain = study(METHODS, baseline=BASELINE)
    assert whole_trials(plain) == plain.trials == 6, "where nothing was counted"
    spec = with_costs(plain)
    costs = [spec.cost(label)[1] for label in spec.arms]
    base = spec.cost(spec.study.base)[1]
    assert base and whole_trials(spec) == pytest.approx(2 * sum(c / base for c in costs if c))


def test_older_sweeps_have_no_cap_and_a_baseline_that_is_not_capped_is_the_same() -> None:
    new = build_sweep({**RAW, "method": "retro", "baseline": BASELINE})
    raw = new.model_dump(mode="json")
    del raw["baseline"]["cap"]
    old = SearchSpec.model_validate(raw)  # of a ledger without the field
    assert old.baseline is not None and old.baseline.cap == "none"
    assert as_begun(new, old).hash() == old.hash()
    assert new.baseline_trial().signature() == old.baseline_trial().signature()
    with pytest.raises(UserError, match=r"^baseline\.cap: "):
        build_sweep({**RAW, "method": "retro", "baseline": {**BASELINE, "cap": 10}})


class Pool:
    """A pool whose lanes take what they are given, and never come to the end of a baseline."""

    broken = None

    def __init__(self) -> None:
        self.ran: list[tuple[str, bool]] = []

    def no_more_trials(self) -> None:
        self.over = True

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
        wanted = {"raw_pixels", "untrained", "teacher", "baseline"}
        assert {name for name, background in pool.ran if background} == wanted and pool.over
        assert {"raw_pixels", "untrained", "teacher"} <= set(recorder.history.references)
    assert [text.partition(":")[0] for text in said] == ["baseline", "the time limit is reached before these"]
    assert "1459 epochs" in said[0] and "baseline; go on with:  raykd resume both" in said[1]


@pytest.mark.parametrize("before", [False, True])
def test_a_student_that_is_trained_before_has_its_rows_afterwards(before: bool, tmp_path: Path) -> None:
    """Else its row, which needs no preparation, is measured meanwhile; the label says how it comes."""
    learned = {"train": {"method": "supervised", "preset": "digits", "epochs": 3}} if before else {}
    given = {**RAW, "method": "retro", "student": {"arch": "test_efficientnet", **learned}}
    spec = build_sweep(given)
    prepared: list[set[str]] = []

    class Watched(Pool):
        def run(self, task: Any, on_report: Any) -> None:
            if task.id == "prepare":
                time.sleep(0.3)
                prepared.append({name for name, _ in self.ran})
            super().run(task, on_report)

    with Ledger.create(tmp_path / "both") as ledger:
        recorder = Recorder(ledger, History())
        head = {"spec_hash": spec.hash(), "source": None, "sampler": {}, "scheduler": {}, "versions": {}}
        recorder("sweep", spec=spec.model_dump(mode="json"), **head)
        pool: Any = Watched()
        References(spec, recorder, pool, Console(), open_sweep(tmp_path / "both")).around(lambda: True)
        label = recorder.history.references["untrained"]["label"]
    assert prepared == [set() if before else {"raw_pixels", "untrained"}]
    assert label == ("the student, as it came" if before else "the student, untrained")
