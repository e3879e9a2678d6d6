"""The size of each trial's student: recorded with its proposal, shown where students differ."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
from histories import a_sweep, search
from ledger_records import suggest
from rich.console import Console as Rich
from tensorboard.backend.event_processing.event_file_loader import EventFileLoader
from tensorboard.plugins.hparams import metadata

import raykd
from raykd.cli import main
from raykd.console.live import Console
from raykd.records.history import History
from raykd.records.tables import trials_table
from raykd.records.tensorboard import TensorBoardWriter
from raykd.records.views import best, read
from raykd.report import build
from raykd.report.elements import Table
from raykd.searching.proposer import Proposer, Repeat
from trainables.core.amounts import magnitude
from trainables.networks.sizes import student_size
from trainables.spec.trial import ModelSpec

LARGE = "raykd/resnet9"
ARCHS: dict[str, Any] = {"student.arch": ["test_resnet", "test_efficientnet"], "lr": {"log": [1e-3, 0.1]}}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sweep over two students in which a trial is stopped, one fails and one is in flight."""
    return search(tmp_path_factory.mktemp("sizes"), "fsxrfsff", axes=ARCHS)


def test_every_trial_has_the_size_of_its_student_however_it_ended(folder: Path) -> None:
    history = read(folder)
    assert {t.status for t in history.trials.values()} == {"finished", "stopped", "failed", "running"}
    for trial in history.trials.values():
        size = student_size(ModelSpec(arch=trial.config["student.arch"]), 16)
        assert trial.size == size._asdict()
    table = trials_table(history).to_pylist()
    assert [(row["params"], row["macs"]) for row in table] == [
        (t.size["params"], t.size["macs"]) for t in history.trials.values()
    ]
    assert best(history)["size"] == history.best().size  # type: ignore[union-attr]


def test_the_python_interface_has_them(folder: Path) -> None:
    trial = raykd.open(folder).best()
    student = student_size(ModelSpec(arch=trial.params["student.arch"]), 16)
    assert (trial.parameter_count, trial.multiply_adds) == tuple(student)


def test_a_ledger_from_before_has_none_and_is_read() -> None:
    history = History.of([suggest("t", lr=0.1), {**suggest("u", lr=0.1), "size": {"params": 3, "macs": 5}}])
    assert [t.size for t in history.trials.values()] == [{}, {"params": 3, "macs": 5}]
    assert trials_table(history).column("macs").to_pylist() == [None, 5]


def test_tables_show_them_where_students_differ(folder: Path, tmp_path: Path) -> None:
    alike = search(tmp_path, "ffs")
    for place, shown in ((folder, True), (alike, False)):
        console = Console(Rich(file=io.StringIO(), width=160))
        console.trials(read(place), driven=True)
        printed = console.out.file.getvalue()  # type: ignore[attr-defined]
        assert ("multiply-adds" in printed) == shown
        page = build(place, place / "report.html", 0.0)
        tables = [part for s in page.sections for part in s.parts if isinstance(part, Table)]
        assert any("multiply-adds" in table.columns for table in tables) == shown
        said = dict(page.facts.rows)["Student"]
        assert ("parameters" in said) != shown, "one size for all stands in the head"


def test_tensorboard_has_them_as_metrics_where_students_differ(folder: Path, tmp_path: Path) -> None:
    history = read(folder)
    for axes, declared in ((ARCHS, True), ({"lr": {"log": [0.01, 0.1]}}, False)):
        place = tmp_path / str(declared)
        TensorBoardWriter(place, a_sweep(axes, 2)).rebuild(history if declared else History())
        (experiment,) = (place / "tensorboard").glob("events*")
        (data,) = [
            metadata.parse_experiment_plugin_data(value.metadata.plugin_data.content)
            for event in EventFileLoader(str(experiment)).Load()
            for value in event.summary.value
        ]
        names = {metric.name.tag for metric in data.metric_infos}
        assert ({"size/params", "size/macs"} <= names) == declared
    for trial in history.trials.values():
        (run,) = (tmp_path / "True/tensorboard" / trial.trial).iterdir()
        found = {
            value.tag: value.tensor.float_val[0] if value.tensor.float_val else None
            for event in EventFileLoader(str(run)).Load()
            for value in event.summary.value
        }
        assert (found["size/params"], found["size/macs"]) == tuple(trial.size.values())


def test_a_student_that_cannot_take_the_images_is_a_proposal_that_costs_nothing() -> None:
    spec = a_sweep({"student.arch": ["test_resnet", "vit_tiny_patch16_224"]}, 2, sampler={"name": "grid"})
    proposer = Proposer(spec)
    found = [proposer.propose() for _ in range(2)]
    (refused,) = [one for one in found if isinstance(one, Repeat)]
    assert refused.trial is None and "axes.student.arch: cannot take images of 16 px" in str(refused.reason)


def test_the_dry_run_shows_them(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "wide.yaml"
    path.write_text(
        "method: retro\npreset: digits\nstudent: {arch: raykd/resnet9}\nepochs: 2\nsampler: grid\n"
        "teacher: {arch: test_resnet, train: {method: moco, preset: digits, epochs: 1}}\n"
        "axes: {student.options.width: [0.25, 0.5]}\n"
    )
    with pytest.raises(SystemExit):
        main(["run", str(path), "--dry-run", "--storage", str(tmp_path)])
    printed = capsys.readouterr().out
    wide = student_size(ModelSpec(arch=LARGE, options={"width": 0.5}), 16)
    assert "multiply-adds" in printed and magnitude(wide.macs) in printed


@pytest.mark.parametrize(
    ("value", "said"),
    [(999, "999"), (1000, "1k"), (372_688, "373k"), (999_600, "1M"), (4_202_032, "4.2M"), (1.25e9, "1.25G")],
)
def test_magnitudes(value: float, said: str) -> None:
    assert magnitude(value) == said
