"""Students that have learned before, in sweeps, studies and exports: axes, arms, paths, doctor, cards."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import save_file

from raykd.ablation.guard import check_study
from raykd.ablation.study import build_study
from raykd.doctor.node import inputs
from raykd.doctor.sweep_checks import check_spec
from raykd.export.model_card import _images
from raykd.export.student import WEIGHTS, write_student
from raykd.export.trial import config_of
from raykd.runs.auxiliary import to_prepare, untrained
from raykd.spec.search import SearchSpec, build_sweep, read_sweep
from raykd.spec.validate import validate
from raykd.storage.local import LocalStorage
from trainables.core.errors import UserError
from trainables.networks.backbones import noise
from trainables.spec.trial import TrialSpec
from trainables.teachers.student import build_student
from trainables.training.resolve import resolve

torch.set_num_threads(1)
ARCH = "test_efficientnet"
NARROW: dict[str, Any] = {"arch": ARCH, "options": {"channel_multiplier": 0.5}}


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two files of one network; the first says that its pixels have a mean and deviation of 0.5."""
    folder = tmp_path_factory.mktemp("files")
    paths = [folder / "a.safetensors", folder / "b.safetensors"]
    for seed, path in enumerate(paths):
        torch.manual_seed(seed)
        state = timm.create_model(ARCH, channel_multiplier=0.5, num_classes=0).state_dict()
        save_file(state, path, {} if seed else {"mean": "[0.5, 0.5, 0.5]", "std": "[0.5, 0.5, 0.5]"})
    return paths


def sweep(**more: Any) -> SearchSpec:
    usual = {"name": "s", "method": "moco", "preset": "digits", "student": NARROW, "epochs": 1, "samples": 3}
    return build_sweep({**usual, "references": [], "fixed": {"queue_size": 256}, **more})


def trial(**student: Any) -> TrialSpec:
    return resolve({"method": "moco", "preset": "digits", "student": {**NARROW, **student}, "epochs": 1})


def test_files_are_an_axis_and_each_has_its_own_pixels(files: list[Path]) -> None:
    spec = sweep(axes={"student.checkpoint": [str(path) for path in files], "lr": {"log": [1e-3, 1e-2]}})
    remarks = validate(spec)
    assert all(any(f"starts from {path}" in remark for remark in remarks) for path in files)
    trials = [spec.trial({"student.checkpoint": str(path), "lr": 1e-3}, 0) for path in files]
    assert trials[0].student.mean == (0.5, 0.5, 0.5) and trials[1].student.mean == (0.485, 0.456, 0.406)
    assert len({one.signature() for one in trials}) == 2
    with pytest.raises(UserError) as caught:
        validate(sweep(axes={"student.checkpoint": [str(files[0]), str(files[0].with_name("none"))]}))
    assert caught.value.field == "axes.student.checkpoint"


def test_whether_it_has_learned_is_an_arm(files: list[Path]) -> None:
    """What follows from it (its pixels) is no undeclared difference; the baseline has the same weights."""
    base = {
        "method": "moco",
        "preset": "digits",
        "student": {**NARROW, "checkpoint": str(files[0])},
        "epochs": 1,
    }
    raw = {"name": "t", "base": base, "design": "one_at_a_time", "replicates": 2}
    levels = [str(files[0]), None, str(files[1])]
    spec, _ = check_study(build_study({**raw, "factors": {"student.checkpoint": levels}}, Path("nowhere")))
    students = [spec.arm_trial(label).student for label in spec.arms]
    assert [student.has_learned for student in students] == [True, False, True]
    assert (
        spec.model_copy(update={"baseline": sweep(baseline="moco").baseline}).baseline_trial().student
        == students[0]
    )


def test_relative_paths_start_from_the_sweep_s_folder(files: list[Path]) -> None:
    given = {
        "name": "s",
        "method": "moco",
        "epochs": 1,
        "samples": 1,
        "student": {**NARROW, "checkpoint": "a.safetensors"},
    }
    for spec in (
        read_sweep(given, folder=files[0].parent),
        read_sweep(
            {**given, "student": NARROW, "axes": {"student.checkpoint": ["a.safetensors", "b.safetensors"]}},
            folder=files[0].parent,
        ),
    ):
        assert str(files[0]) in json.dumps(spec.model_dump(mode="json"))


def test_the_doctor_compares_the_files_of_nodes(files: list[Path]) -> None:
    before = {
        "method": "seed",
        "preset": "digits",
        "epochs": 1,
        "teacher": {**NARROW, "checkpoint": str(files[1])},
    }
    spec = sweep(student={**NARROW, "checkpoint": str(files[0])})
    assert f"student {files[0]}" in inputs(spec)
    (student,) = [check for check in check_spec(spec) if check.name == "student"]
    assert student.ok and str(files[0]) in student.said
    assert f"teacher {files[1]}" in inputs(sweep(student={**NARROW, "train": before}))


def test_trainings_before_are_planned_and_no_axis(tmp_path: Path) -> None:
    before = {"method": "supervised", "preset": "digits", "epochs": 1, "data": {"classes": [0, 1]}}
    spec = sweep(student={**NARROW, "train": before}, data={"name": "digits", "classes": [2, 3]})
    (made,) = untrained(spec, LocalStorage(tmp_path))
    assert (made.method, made.data.classes, len(to_prepare(spec))) == ("supervised", (0, 1), 1)
    with pytest.raises(UserError, match="trained once") as caught:
        validate(sweep(student={**NARROW, "train": before}, axes={"student.train.epochs": [1, 2]}))
    assert caught.value.field == "axes.student.train.epochs"
    again = build_sweep(config_of(spec, spec.trial({}, 0)))
    assert again.trial({}, 0).signature() == spec.trial({}, 0).signature()


@pytest.mark.parametrize("grey", [False, True])
def test_timm_opens_it_with_the_pixels_that_it_sees(files: list[Path], grey: bool, tmp_path: Path) -> None:
    options = {"channel_multiplier": 0.5, **({"in_chans": 1} if grey else {})}
    given = trial(options=options, checkpoint=str(files[0]))
    student = build_student(given.student, 0, files[0]).eval()
    write_student(given, student, tmp_path / "student")
    config = json.loads((tmp_path / "student" / "config.json").read_text())["pretrained_cfg"]
    assert config["mean"] == config["std"] == [0.5] * (1 if grey else 3)
    assert config["input_size"][0] == len(config["mean"])
    assert "0.5" in _images(given, student) and ("grey" in _images(given, student)) == grey
    model = timm.create_model(f"local-dir:{tmp_path / 'student'}", pretrained=True).eval()
    mean, std = (
        torch.tensor(values).view(3, 1, 1) for values in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    )
    pixels = noise(16)
    seen = (
        (pixels * torch.tensor([0.299, 0.587, 0.114]).view(3, 1, 1)).sum(1, keepdim=True) if grey else pixels
    )
    with torch.no_grad():
        torch.testing.assert_close(
            model((seen - 0.5) / 0.5), student((pixels - mean) / std), rtol=1e-3, atol=1e-4
        )
    again = trial(options=options, checkpoint=str(tmp_path / "student" / WEIGHTS))
    assert again.student.mean == (0.5, 0.5, 0.5)
    state = build_student(again.student, 0, tmp_path / "student" / WEIGHTS).model.state_dict()
    assert all(torch.equal(value, state[name]) for name, value in student.model.state_dict().items())
