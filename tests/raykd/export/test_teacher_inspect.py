"""`raykd teacher inspect`: what it says of files, as text and as JSON, and what it refuses."""

from __future__ import annotations

import hashlib
import json
import os
import re
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
import yaml
from torch import nn

from raykd.cli import main
from raykd.export.student import write_student
from raykd.export.teacher import inspect
from trainables.methods import methods
from trainables.methods.base import TAUGHT
from trainables.networks.backbones import build_backbone
from trainables.planning.teacher_check import check_teacher
from trainables.spec.trial import TeacherSpec
from trainables.training.resolve import resolve


@pytest.fixture(scope="module")
def moco(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """MoCo v2's file of a ResNet-18."""
    path = tmp_path_factory.mktemp("teachers") / "moco_v2.pth.tar"
    model = timm.create_model("resnet18", num_classes=0)
    head = nn.Sequential(nn.Linear(512, 512), nn.ReLU(), nn.Linear(512, 128))
    state = {f"module.encoder_q.{name}": value for name, value in model.state_dict().items()}
    state |= {f"module.encoder_q.fc.{name}": value for name, value in head.state_dict().items()}
    state["module.queue"] = torch.zeros(128, 16)
    torch.save({"epoch": 200, "arch": "resnet18", "state_dict": state}, path)
    return path


@pytest.fixture(scope="module")
def supervised(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("teachers") / "resnet18.pth"
    torch.save(timm.create_model("resnet18", num_classes=10).state_dict(), path)
    return path


def said(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    with pytest.raises(SystemExit) as caught:
        main(["teacher", "inspect", *map(str, arguments)])
    assert caught.value.code == 0
    return capsys.readouterr().out


def test_text_says_all_that_json_does(
    moco: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "160")
    text = said(capsys, moco)
    found = json.loads(said(capsys, moco, "--json"))
    digest = hashlib.sha256(moco.read_bytes()).hexdigest()
    assert found["origin"] == "moco_v2" and found["container"] == "state_dict"
    assert found["architecture"] == {
        "said": "resnet18",
        "guess": {"arch": "resnet18", "options": {}},
        "by": "names and shapes",
        "asked": None,
        "verified": True,
    }
    assert found["parameters"] == 11_176_512  # ResNet-18 without its classifier
    assert found["roles"] == {"backbone": 120, "head": 4, "queue": 1}
    assert found["sha256"] == digest and found["classes"] == 0
    for part in (
        str(moco),
        "moco_v2, under `state_dict`",
        "resnet18, by names and shapes; every weight fits (the file says resnet18)",
        "120 tensors: 11,176,512 parameters",
        "4 tensors: Linear(512, 512)-ReLU-Linear(512, 128)",
        digest,
        "arch: resnet18",
    ):
        assert part in text, text


def test_it_says_which_methods_a_file_can_teach_and_why_not(moco: Path, supervised: Path) -> None:
    headed, classes = inspect(moco)["serves"], inspect(supervised)["serves"]
    taught = {name for name, method in methods().items() if method.needs & TAUGHT}
    assert set(headed) == set(classes) == taught
    for name in taught:
        needs = methods()[name].needs
        assert headed[name]["can"] is ("teacher_classifier" not in needs)
        assert classes[name]["can"] is ("teacher_head" not in needs)
    assert "`teacher: {head: fit}`" in classes["retro"]["why"]
    assert classes["seed"]["can"] is not False and "from its features" in classes["seed"]["why"]
    assert "needs the teacher's projection head, and the file holds none" in classes["retro"]["why"]
    assert inspect(supervised)["classes"] == 10


def test_the_lines_it_gives_make_a_teacher(moco: Path) -> None:
    lines: dict[str, Any] = yaml.safe_load(inspect(moco)["paste"])
    student = {"arch": "test_efficientnet"}
    trial = resolve({"method": "retro", "preset": "digits", "student": student, "epochs": 1, **lines})
    assert trial.teacher is not None
    assert (trial.teacher.arch, trial.teacher.checkpoint) == ("resnet18", moco)


def test_an_unknown_architecture_is_asked_for(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "tiny.pth"
    torch.save(timm.create_model("test_resnet", num_classes=0).state_dict(), path)
    assert "none of the usual ones" in said(capsys, path)
    found = inspect(path)
    asked = {"can": None, "why": "give its architecture with --arch NAME to check the rest"}
    assert found["serves"]["compress"] == asked
    assert found["serves"]["retro"]["can"] is False  # whatever it is, it has no head
    checked = inspect(path, "test_resnet")
    assert checked["architecture"]["verified"] and checked["serves"]["compress"]["can"] is True
    assert "test_resnet; every weight fits" in said(capsys, path, "--arch", "test_resnet")


@pytest.mark.parametrize(
    ("arch", "options", "by"),
    [
        ("test_efficientnet", {"channel_multiplier": 0.5}, "its config.json"),
        ("test_resnet", {"stem": "small"}, "names and shapes"),  # what timm has no word for is in the file
    ],
)
def test_an_exported_student_teaches_without_a_word(
    arch: str, options: dict[str, Any], by: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trial = resolve(
        {
            "method": "moco",
            "preset": "digits",
            "student": {"arch": arch, "options": options},
            "data": {"name": "digits", "image_size": 16},
            "epochs": 1,
        }
    )
    write_student(trial, build_backbone(trial.student, 0).eval(), tmp_path / "out" / "student")
    for path in (tmp_path / "out", tmp_path / "out/student", tmp_path / "out/student/model.safetensors"):
        found = inspect(path)
        assert found["architecture"]["verified"] and found["architecture"]["by"] == by
        teacher = yaml.safe_load(found["paste"])["teacher"]
        assert teacher["arch"] == arch and teacher["options"].items() >= options.items()
        check_teacher(TeacherSpec(**teacher), frozenset({"teacher"}))
    assert f"{arch} with" in said(capsys, path, "--arch", arch)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--arch", "resnet50"], r"teacher\.arch: only .* by names and shapes it is resnet18"),
        (["--arch", "resnet5O"], r"teacher\.arch: no such architecture.*resnet50"),
    ],
)
def test_a_wrong_architecture_is_refused(
    moco: Path, arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    refused(capsys, message, moco, *arguments)


class Trap:
    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.mark),)


def test_what_is_no_teacher_is_one_message(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "notes.pth").write_text("weights are on the other disk\n")
    (tmp_path / "empty.pth").touch()
    (tmp_path / "damaged.safetensors").write_bytes(b"\xff" * 64)
    torch.save({"state_dict": {"w": torch.zeros(1)}, "cfg": Trap(tmp_path / "mark")}, tmp_path / "trap.pth")
    for name, message in (
        ("absent.pth", "FILE: no such file"),
        ("", "FILE: is a folder"),
        ("notes.pth", "FILE: cannot be read: damaged"),
        ("empty.pth", "FILE: cannot be read: damaged"),
        ("damaged.safetensors", "FILE: cannot be read: damaged"),
        ("trap.pth", r"FILE: cannot be read: it asks to run posix\.mkdir"),
    ):
        refused(capsys, message, tmp_path / name)
    assert not (tmp_path / "mark").exists()


def refused(capsys: pytest.CaptureFixture[str], message: str, *arguments: object) -> None:
    """Exit code 2, one message on standard error, nothing else."""
    with pytest.raises(SystemExit) as caught:
        main(["teacher", "inspect", *map(str, arguments)])
    out, err = capsys.readouterr()
    assert caught.value.code == 2 and out == ""
    assert err.count("raykd:") == 1 and "Traceback" not in err
    assert re.search(message, err.replace("\n", " ")), err
