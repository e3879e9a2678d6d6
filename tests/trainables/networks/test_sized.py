"""Networks for images of another size: built by timm's option, position embeddings resampled as timm does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import timm
import torch

from trainables.core.errors import UserError
from trainables.networks.sized import sized
from trainables.spec.inputs import Inputs
from trainables.spec.trial import ModelSpec, TeacherSpec
from trainables.teachers.teacher import load_teacher

SMALL = {"depth": 1, "embed_dim": 24, "num_heads": 3}
SWIN = {"depths": (1, 1), "embed_dim": 12, "num_heads": (2, 2), "window_size": 4}


@pytest.mark.parametrize(
    "arch, options, size, wanted",
    [
        ("test_resnet", {}, 48, {}),
        ("vit_tiny_patch16_224", SMALL, 224, {}),
        ("vit_tiny_patch16_224", SMALL, 96, {"img_size": 96}),
        ("vit_tiny_patch16_224", {**SMALL, "dynamic_img_size": True}, 96, {}),
        ("vit_tiny_patch16_224", {**SMALL, "img_size": 96}, 96, {}),
        ("torchvision/resnet18", {}, 40, {}),
    ],
)
def test_only_what_needs_it_gets_an_option(arch: str, options: Any, size: int, wanted: Any) -> None:
    assert sized(ModelSpec(arch=arch, options=options), size).options == {**options, **wanted}


@pytest.mark.parametrize(
    "arch, options, size, words",
    [
        ("vit_small_patch14_dinov2", SMALL, 224 + 10, "patches of 14 pixels.*Expected 224 or 238"),
        ("vit_tiny_patch16_224", SMALL, 9, "Expected 16"),
        ("vit_tiny_patch16_224", {**SMALL, "img_size": 96}, 48, "differs from `options: {img_size: 96}`"),
        ("inception_v3", {}, 40, "no option changes that.*Expected 299, as it was trained on"),
    ],
)
def test_what_timm_cannot_is_refused_with_its_reason(arch: str, options: Any, size: int, words: str) -> None:
    with pytest.raises(UserError, match=words) as caught:
        sized(ModelSpec(arch=arch, options=options), size)
    assert caught.value.field == "teacher.image_size" and caught.value.value == size


@pytest.mark.parametrize(
    "arch, options, made_for, size",
    [
        ("vit_tiny_patch16_224", SMALL, 112, 64),
        ("vit_small_patch14_dinov2", SMALL, 56, 84),
        ("deit_tiny_distilled_patch16_224", SMALL, 64, 96),
        ("swin_tiny_patch4_window7_224", SWIN, 32, 64),
    ],
)
def test_embeddings_of_positions_are_timm_s_own(
    arch: str, options: Any, made_for: int, size: int, tmp_path: Path
) -> None:
    """Without the resampling the file does not load; with it, timm's network of that size says the same."""
    torch.manual_seed(0)
    original = timm.create_model(arch, num_classes=0, img_size=made_for, **options).eval()
    torch.save(original.state_dict(), tmp_path / "teacher.pth")
    wanted: Any = timm.create_model(
        arch, num_classes=0, img_size=size, checkpoint_path="", **options
    ).eval()  # untrained, of the other size
    timm.models.load_checkpoint(wanted, str(tmp_path / "teacher.pth"), filter_fn=_filter(wanted))
    spec = TeacherSpec(arch=arch, options=options, checkpoint=tmp_path / "teacher.pth", mean=0.485, std=0.229)
    teacher = load_teacher(spec.model_copy(update={"image_size": size}), tmp_path / "teacher.pth")
    assert teacher.backbone.inputs.image_size == size
    images = torch.randn(2, 3, size, size)
    with torch.no_grad():
        assert torch.equal(teacher.backbone.model(images), wanted(images))
        larger = torch.randn(2, 3, 2 * size, 2 * size)
        assert teacher.features(larger).shape == (2, teacher.feature_dim), "views of any size are resized"
    if "swin" not in arch:  # whose tables depend on the window alone
        with pytest.raises(UserError, match=r"pos_embed|position.*`teacher: \{image_size: N\}`"):
            load_teacher(
                spec.model_copy(update={"options": {**options, "img_size": size}}), tmp_path / "teacher.pth"
            )


def _filter(model: Any) -> Any:
    import sys

    return sys.modules[type(model).__module__].checkpoint_filter_fn


def test_nothing_but_positions_may_be_resampled(tmp_path: Path) -> None:
    """timm would also resample the patches' kernels: that is another network."""
    options = {**SMALL, "img_size": 64}
    original = timm.create_model("vit_tiny_patch16_224", num_classes=0, patch_size=8, **options)
    torch.save(original.state_dict(), tmp_path / "t.pth")
    spec = TeacherSpec(
        arch="vit_tiny_patch16_224", options=SMALL, checkpoint=tmp_path / "t.pth", image_size=64
    )
    with pytest.raises(UserError, match=r"only \d+ of \d+ weights"):
        load_teacher(spec, tmp_path / "t.pth")


def test_what_matters_in_training_is_what_changes_a_view() -> None:
    full = Inputs(channels="bgr", interpolation="bicubic", crop_share=0.9, image_size=224)
    assert full.training(224) == Inputs(channels="bgr")
    assert full.training(32) == full._replace(crop_share=None)
