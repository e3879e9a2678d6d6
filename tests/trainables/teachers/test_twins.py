"""Architectures whose weights have the same names and shapes: told apart by what the file says, or said."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import save_file

from trainables.core.errors import UserError
from trainables.planning.teacher_check import check_teacher, teacher_remarks
from trainables.spec.trial import TeacherSpec
from trainables.teachers.architecture import guess, twins_remark
from trainables.teachers.pretrained.claims import known_name, named_by_path
from trainables.teachers.pretrained.read import read_checkpoint
from trainables.teachers.twins import are_twins, twins

PLAIN, TWIN = "mobilenetv3_small_050", "tf_mobilenetv3_small_075"
SMALL, TF_SMALL = "mobilenetv3_small_100", "tf_mobilenetv3_small_100"


@pytest.fixture(scope="module")
def weights() -> dict[str, torch.Tensor]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        state: dict[str, torch.Tensor] = timm.create_model(TF_SMALL, num_classes=3).state_dict()
    return state


def test_all_twins_are_found_and_none_that_computes_the_same() -> None:
    assert twins(SMALL) == (TF_SMALL,)
    assert twins(f"{TF_SMALL}.in1k") == (SMALL,)


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        ("efficientnet_b0", "tf_efficientnet_b0", True),
        ("efficientnet_b0", "efficientnet_blur_b0", True),
        ("resnet18", "resnetblur18", True),
        ("resnet50", "resnetaa50", True),
        ("vit_base_patch16_clip_224", "vit_base_patch16_clip_quickgelu_224", True),  # another activation
        ("vit_tiny_patch16_224", "deit_tiny_patch16_224", False),  # the same function
        ("resnet18", "resnet34", False),
        ("resnet18", "resnet18", False),
        ("torchvision/resnet18", "resnet18", False),
        (PLAIN, TWIN, False),
    ],
)
def test_twins_have_the_same_weights_and_compute_otherwise(one: str, other: str, expected: bool) -> None:
    assert are_twins(one, other) is are_twins(other, one) is expected


@torch.no_grad()
def test_twins_do_compute_otherwise(weights: dict[str, torch.Tensor]) -> None:
    """The one's weights in the other: features of another direction."""
    images = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    outputs = []
    for arch in (SMALL, TF_SMALL):
        model = timm.create_model(arch, num_classes=3).eval()
        model.load_state_dict(weights)
        outputs.append(model.forward_features(images).flatten(1))
    assert (outputs[0] - outputs[1]).norm() > 0.05 * outputs[0].norm()


WAYS: dict[str, dict[str, Any]] = {
    "arch": {"arch": TF_SMALL},
    "timm's trainer": {"arch": "mobilenetv3", "args": argparse.Namespace(model=f"{TF_SMALL}.in1k")},
    "arguments as a mapping": {"config": {"model": {"name": TF_SMALL}}},
    "solo-learn": {"hyper_parameters": {"backbone": {"name": TF_SMALL}}},
    "a hub id": {"model_name": f"hf-hub:timm/{TF_SMALL}.in1k"},
}


@pytest.mark.parametrize("way", WAYS)
def test_the_name_in_the_file_wins(tmp_path: Path, weights: dict[str, torch.Tensor], way: str) -> None:
    path = tmp_path / "x.pth"
    torch.save({"state_dict": weights, **WAYS[way]}, path)
    holds(path, "its own word")


def holds(path: Path, by: str) -> None:
    """The file is of the twin, and refused as the plain one."""
    found = guess(read_checkpoint(path, "FILE"))
    assert found is not None and (found.model.arch, found.by) == (TF_SMALL, by)
    needs = frozenset({"teacher"})
    for arch in (TF_SMALL, f"{TF_SMALL}.in1k"):
        assert teacher_remarks(TeacherSpec(arch=arch, checkpoint=path)) == []
    with pytest.raises(UserError, match=rf"teacher\.arch: the file says it is {TF_SMALL}.*got '{SMALL}'"):
        check_teacher(TeacherSpec(arch=SMALL, checkpoint=path), needs)


def test_metadata_and_a_config_beside_the_file_name_it_too(
    tmp_path: Path, weights: dict[str, torch.Tensor]
) -> None:
    save_file(weights, tmp_path / "x.safetensors", {"arch": TF_SMALL})
    holds(tmp_path / "x.safetensors", "its own word")
    save_file(weights, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps({"architecture": TF_SMALL, "num_classes": 3}))
    holds(tmp_path / "model.safetensors", "its config.json")


def test_where_the_file_names_none_it_is_said(tmp_path: Path, weights: dict[str, torch.Tensor]) -> None:
    path = tmp_path / "best.pth"
    torch.save(weights, path)
    for arch, other in ((SMALL, TF_SMALL), (TF_SMALL, SMALL)):
        (said,) = teacher_remarks(TeacherSpec(arch=arch, checkpoint=path))
        assert f"teacher.arch: best.pth is read as {arch}" in said and other in said and "set `arch`" in said
    torch.save(timm.create_model("vit_tiny_patch16_224", num_classes=0).state_dict(), path)
    assert teacher_remarks(TeacherSpec(arch="vit_tiny_patch16_224", checkpoint=path)) == []


def test_the_file_s_path_is_a_hint(tmp_path: Path, weights: dict[str, torch.Tensor]) -> None:
    named = tmp_path / f"{TF_SMALL}-48cfa2c2.pth"
    cached = tmp_path / f"models--timm--{TF_SMALL}.in1k" / "snapshots" / "a1b2" / "pytorch_model.bin"
    for path in (named, cached):
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.save(weights, path)
        read = read_checkpoint(path, "FILE")
        found = guess(read)
        assert found is not None and (found.model.arch, found.by) == (TF_SMALL, "the file's path")
        assert twins_remark(read.facts, TF_SMALL) == ""
        assert f"its path says {TF_SMALL}" in twins_remark(read.facts, SMALL)


@pytest.mark.parametrize(
    ("name", "known"),
    [
        ("tf_efficientnet_b0.ns_jft_in1k", "tf_efficientnet_b0"),
        ("hf-hub:timm/resnet50.a1_in1k", "resnet50"),
        ("timm/resnet50", "resnet50"),
        ("ResNet50", "resnet50"),
        ("torchvision/resnet18", "torchvision/resnet18"),
        ("vgg11", "vgg11"),
        ("mobilenet_v2", "torchvision/mobilenet_v2"),
        ("vit_small", None),
        ("efficientnet", None),
        ("", None),
    ],
)
def test_names_of_architectures(name: str, known: str | None) -> None:
    assert known_name(name) == known


def test_names_in_paths() -> None:
    assert named_by_path(Path("/x/tf_efficientnet_b0_aa-827b6e33.pth")) == ("tf_efficientnet_b0",)
    assert named_by_path(Path("/x/best.pth")) == ()
