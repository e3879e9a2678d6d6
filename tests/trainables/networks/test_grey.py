"""`options: {in_chans: 1}`: what a network of grey images sees, whose weights it takes, what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from PIL import Image
from tiny_trials import run, tiny, workspace
from torchvision.transforms.functional import pil_to_tensor, to_pil_image

from trainables.core.errors import UserError
from trainables.networks.backbones import build_backbone, noise
from trainables.planning.check import TrialChecker
from trainables.spec.inputs import Inputs
from trainables.spec.normalisation import IMAGENET, Normalisation
from trainables.spec.trial import ModelSpec, TeacherSpec
from trainables.teachers.student import build_student
from trainables.teachers.teacher import load_teacher
from trainables.training.run import BEST

torch.set_num_threads(1)
GREY = ModelSpec(arch="test_resnet", options={"in_chans": 1})
HALF = Normalisation((0.5, 0.4, 0.6), (0.2, 0.3, 0.1))


def views(pixels: torch.Tensor) -> torch.Tensor:
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in IMAGENET)
    return (pixels - mean) / std


@pytest.mark.parametrize("trained", [IMAGENET, HALF])
def test_it_sees_pillow_s_luminance_normalised_by_the_mean_over_channels(trained: Normalisation) -> None:
    image: Image.Image = to_pil_image(noise(16)[0])
    pixels = pil_to_tensor(image)[None].float() / 255
    backbone = build_backbone(GREY, 0)
    backbone.feed(Inputs(trained))
    luminance = pil_to_tensor(image.convert("L"))[None].float() / 255
    want = (luminance - sum(trained.mean) / 3) / (sum(trained.std) / 3)
    found = backbone.fed(views(pixels))
    assert found.shape == (1, 1, 16, 16)
    torch.testing.assert_close(found, want, rtol=0, atol=1 / 255 / min(trained.std))  # Pillow rounds


def test_features_maps_and_facts_are_those_of_timm_s_own_network() -> None:
    backbone = build_backbone(GREY, 0).eval()
    pixels = views(noise(32))
    with torch.no_grad():
        features, maps = backbone.with_maps(pixels)
        torch.testing.assert_close(features, backbone.model(backbone.fed(pixels)))
        torch.testing.assert_close(backbone(pixels), features)
    facts = backbone.facts(32)
    assert [one.shape[1:3] for one in maps] == [(c, s) for c, s in facts.stages]
    assert facts.feature_dim == features.shape[1]
    assert next(backbone.model.parameters()).shape[1] == 1


def test_weights_for_colours_are_summed_as_timm_does_it(tmp_path: Path) -> None:
    """For a student and a teacher alike: on three equal channels both networks are one function."""
    coloured = timm.create_model("test_resnet", num_classes=0).eval()
    torch.save(coloured.state_dict(), tmp_path / "rgb.pth")
    equal = Normalisation((0.5, 0.5, 0.5), (0.25, 0.25, 0.25))
    spec: dict[str, Any] = {**GREY.model_dump(), "checkpoint": tmp_path / "rgb.pth", **equal._asdict()}
    student = build_student(tiny(student=spec).student, 0, tmp_path / "rgb.pth").eval()
    teacher = load_teacher(TeacherSpec(**spec), tmp_path / "rgb.pth")
    pixels = noise(32)
    weights = torch.tensor([0.299, 0.587, 0.114]).view(3, 1, 1)
    grey = (pixels * weights).sum(1, keepdim=True).expand(-1, 3, -1, -1)
    with torch.no_grad():
        want = coloured((grey - 0.5) / 0.25)
        torch.testing.assert_close(student(views(pixels)), want, rtol=1e-3, atol=1e-4)
        torch.testing.assert_close(teacher.features(views(pixels)), want, rtol=1e-3, atol=1e-4)


def test_a_trial_trains_and_its_student_is_a_start(tmp_path: Path) -> None:
    student = {"arch": "test_efficientnet", "options": {"channel_multiplier": 0.5, "in_chans": 1}}
    grey, colour = tiny(student=student, epochs=1), tiny(epochs=1)
    TrialChecker().check(grey)
    assert grey.signature() != colour.signature()
    place = workspace(tmp_path)
    assert run(grey, place).epochs == [1]
    again = tiny(student={**student, "checkpoint": str(place.folder / BEST)})
    TrialChecker().check(again)
    options = {"channel_multiplier": 0.5}
    with pytest.raises(UserError, match="in_chans: 1"):
        TrialChecker().check(
            tiny(student={**student, "options": options, "checkpoint": str(place.folder / BEST)})
        )


def test_a_wider_host_sees_grey_too() -> None:
    student = {"arch": "test_resnet", "options": {"channels": [8, 8, 16, 16], "in_chans": 1}}
    TrialChecker().check(tiny("sacl", student=student))


@pytest.mark.parametrize(
    ("arch", "count", "word"),
    [
        ("test_resnet", 4, "red, green and blue"),
        ("test_resnet", 0, "red, green and blue"),
        ("test_resnet", "grey", "red, green and blue"),
        ("test_resnet", True, "red, green and blue"),
        ("torchvision/resnet18", 1, "timm's model"),
        ("raykd/resnet9", 1, "timm's model"),
    ],
)
def test_channels_that_no_image_or_network_has(arch: str, count: Any, word: str) -> None:
    with pytest.raises(UserError, match=word) as caught:
        build_backbone(ModelSpec(arch=arch, options={"in_chans": count}), 0)
    assert caught.value.field == "student.options.in_chans"
