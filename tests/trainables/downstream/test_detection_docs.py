"""docs/detection.md and the suite `scenes`: what they show works, with students that were really exported."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
import yaml
from annotated import SMALL, coco, trial, write_coco
from pages import FILE, ROOT, blocks

from raykd.export.student import write_student
from trainables.downstream.detection.maps import stage_maps
from trainables.networks.backbones import Backbone, build_backbone
from trainables.spec.parse import build
from trainables.spec.suite import SuiteSpec
from trainables.spec.suite_detection import PRESETS, DetectionTask
from trainables.spec.trial import DataSpec

PAGE = ROOT / "docs/detection.md"
SUITE = ROOT / "search_spaces/suites/scenes.yaml"


def python(start: str) -> str:
    return next(block.text for block in blocks(PAGE, "python") if block.text.startswith(start))


def exported(folder: Path, arch: str, **options: object) -> Backbone:
    """Written to `folder` as `raykd export` does, with batch norms that have seen something."""
    spec = trial(arch, **options).model_copy(update={"data": DataSpec(image_size=64)})
    student = build_backbone(spec.student.model, 0).eval()
    for name, buffer in student.named_buffers():
        if name.endswith(("running_mean", "running_var")):
            buffer.uniform_(0.5, 1.5)
    write_student(spec, student, folder)
    return student


@pytest.mark.parametrize(
    ("arch", "options"),
    [
        ("test_resnet", {}),
        ("test_resnet", {"in_chans": 1}),
        ("test_efficientnet", {"channel_multiplier": 0.5}),
        ("mobilenetv3_small_050", {}),
        ("test_convnext", {}),
    ],
)
def test_timm_opens_an_exported_student_with_the_maps_of_its_stages(
    tmp_path: Path, arch: str, options: dict[str, object]
) -> None:
    student = exported(tmp_path / "student", arch, **options)
    model = timm.create_model(f"local-dir:{tmp_path / 'student'}", pretrained=True, features_only=True).eval()
    images = torch.rand(2, 3, 64, 96)
    with torch.no_grad():
        ours = stage_maps(student)(images)
        theirs = model(student.fed(images))[-len(ours) :]
    assert all(torch.equal(one, other) for one, other in zip(ours, theirs, strict=True))
    assert model.feature_info.reduction()[-4:] == list(stage_maps(student).strides)


def test_the_detector_of_the_page_trains_and_finds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    student = exported(tmp_path / "student", "mobilenetv3_small_050")
    monkeypatch.chdir(tmp_path)
    said: dict[str, Any] = {"__name__": "page"}
    exec(python("import timm"), said)
    detector = said["detector"]
    assert list(detector.transform.image_mean) == list(student.pixels[0])
    target = {"boxes": torch.tensor([[10.0, 10, 50, 60]]), "labels": torch.tensor([3])}
    losses = detector.train()([torch.rand(3, 64, 80)], [target])
    sum(losses.values()).backward()
    first = next(p for p in said["backbone"].body.parameters())
    assert first.grad is not None and torch.isfinite(first.grad).all()
    assert detector.eval()([torch.rand(3, 64, 80)])[0]["boxes"].shape[1] == 4


def test_the_script_of_the_page(tmp_path: Path) -> None:
    write_coco(tmp_path / "scenes")
    for language in ("yaml", "python"):
        for block in blocks(PAGE, language):
            if named := FILE.match(block.text):
                (tmp_path / named[1]).write_text(block.text)
    suite = yaml.safe_load(SUITE.read_text())
    for task in suite["tasks"].values():
        assert {**coco(Path("scenes"), "train")} == task["train"]
        task.update({**SMALL, "iterations": 1, "epochs": None})
    (tmp_path / "scenes.yaml").write_text(yaml.safe_dump(suite))
    command = [sys.executable, "boxes.py", "start", "masks", "scenes.yaml"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "'score'" in done.stdout and "'further/mask_ap75'" in done.stdout


def test_the_suite_and_the_page_s_tasks_are_read() -> None:
    raw = {name: of for name, of in yaml.safe_load(SUITE.read_text()).items() if name in ("name", "tasks")}
    suite = build(SuiteSpec, raw)
    assert {name: task.detector for name, task in suite.tasks.items()} == {
        "boxes": "faster_rcnn", "masks": "mask_rcnn",
    }  # fmt: skip
    shown = [yaml.safe_load(block.text) for block in blocks(PAGE, "yaml")]
    (tasks,) = [one for one in shown if "tasks" in one]
    assert build(SuiteSpec, {"name": "page", **tasks}).tasks["voc"].iterations == 24_000
    for parts in (one for one in shown if "val" in one):
        build(DetectionTask, {"preset": "coco_1x", **parts})


def test_every_field_and_preset_stands_in_the_page() -> None:
    text = PAGE.read_text()
    missing = [name for name in [*DetectionTask.model_fields, *PRESETS] if f"`{name}`" not in text]
    assert missing == ["task", "data", "preset"]
