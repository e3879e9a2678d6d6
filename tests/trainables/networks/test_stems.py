"""Stems for small images: sizes of the maps, weights, and which families have none."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision
from torch import nn

from trainables.core.errors import UserError
from trainables.networks.backbones import Backbone, build_backbone, check_arch
from trainables.planning.teacher_check import check_teacher
from trainables.spec.trial import ModelSpec, TeacherSpec
from trainables.teachers.teacher import load_teacher

torch.set_num_threads(1)


def built(arch: str, stem: str | None = None, **options: Any) -> Backbone:
    return build_backbone(
        ModelSpec(arch=arch, options={**options, **({"stem": stem} if stem else {})}), 0
    ).eval()


# arch, options, sides of the stages at 32 px without the option, with `small`
FAMILIES: list[tuple[str, dict[str, Any], tuple[int, ...], tuple[int, ...]]] = [
    ("resnet18", {}, (8, 4, 2, 1), (32, 16, 8, 4)),
    ("resnext50_32x4d", {}, (8, 4, 2, 1), (32, 16, 8, 4)),
    ("resnet18d", {}, (8, 4, 2, 1), (32, 16, 8, 4)),  # three convolutions in the stem
    ("densenet121", {}, (8, 4, 2, 1), (32, 16, 8, 4)),
    ("regnetx_002", {}, (8, 4, 2, 1), (16, 8, 4, 2)),  # no pooling to leave out
    ("mobilenetv2_050", {}, (8, 4, 2, 1), (16, 8, 4, 2)),
    ("mobilenetv3_small_050", {}, (8, 4, 2, 1), (16, 8, 4, 2)),
    ("mobilenetv4_conv_small_050", {}, (8, 4, 2, 1), (16, 8, 4, 2)),
    ("efficientnet_b0", {}, (8, 4, 2, 1), (16, 8, 4, 2)),
    ("tf_efficientnet_lite0", {}, (8, 4, 2, 1), (16, 8, 4, 2)),  # pads by the image's size
    ("torchvision/resnet18", {}, (8, 4, 2, 1), (32, 16, 8, 4)),
    ("torchvision/densenet121", {}, (8, 4, 2, 1), (32, 16, 8, 4)),
    ("torchvision/mobilenet_v2", {"width_mult": 0.25}, (8, 4, 2, 1), (16, 8, 4, 2)),
    ("torchvision/shufflenet_v2_x0_5", {}, (8, 4, 2, 1), (32, 16, 8, 4)),
    ("torchvision/mnasnet0_5", {}, (8, 4, 2, 1), (16, 8, 4, 2)),
    ("torchvision/regnet_x_400mf", {}, (8, 4, 2, 1), (16, 8, 4, 2)),
    ("torchvision/mobilenet_v3_small", {}, (8, 4, 2, 1), (16, 8, 4, 2)),
    ("torchvision/efficientnet_b0", {}, (8, 4, 2, 1), (16, 8, 4, 2)),
]


@pytest.mark.parametrize(("arch", "options", "plain", "small"), FAMILIES, ids=[f[0] for f in FAMILIES])
def test_maps_grow(
    arch: str, options: dict[str, Any], plain: tuple[int, ...], small: tuple[int, ...]
) -> None:
    before, after = built(arch, **options), built(arch, "small", **options)
    images = torch.randn(1, 3, 32, 32)
    with torch.no_grad():
        assert tuple(one.shape[2] for one in before.with_maps(images)[1]) == plain
        features, maps = after.with_maps(images)
        assert tuple(one.shape[2] for one in maps) == small
    assert features.shape == (1, before.feature_dim) == (1, after.feature_dim)
    # Only the first convolution's weights are others.
    old, new = before.model.state_dict(), after.model.state_dict()
    assert old.keys() == new.keys()
    stem = next(name for name, m in after.model.named_modules() if isinstance(m, nn.Conv2d))
    other = [name for name in old if not torch.equal(old[name], new[name])]
    assert other in ([], [f"{stem}.weight"])  # where the kernel was 3 x 3, none
    assert new[f"{stem}.weight"].shape[2:] == (3, 3)


def first_weight(backbone: Backbone) -> torch.Tensor:
    return next(m.weight for m in backbone.modules() if isinstance(m, nn.Conv2d)).detach()


@pytest.mark.parametrize("library", ["", "torchvision/"])
@pytest.mark.parametrize("name", ["resnet18", "densenet161"])
def test_new_weights_are_drawn_as_the_family_draws(library: str, name: str) -> None:
    """Normal with variance 2 / (9 * channels): outputs for a ResNet, inputs for a DenseNet."""
    arch = library + name
    weight = first_weight(built(arch, "small"))
    channels = weight.shape[0] if "resnet" in arch else 3
    assert weight.numel() == weight.shape[0] * 27
    assert weight.std().item() == pytest.approx((2 / (9 * channels)) ** 0.5, rel=0.05)
    assert weight.abs().mean().item() == pytest.approx((2 / torch.pi) ** 0.5 * weight.std().item(), rel=0.05)
    assert torch.equal(weight, first_weight(built(arch, "small")))  # the seed gives the bits


def test_solo_learn_s_networks_for_cifar_fit() -> None:
    """Theirs: torchvision's with a 3x3 stem, padding 2, and no pooling."""
    theirs = torchvision.models.resnet18(weights=None)
    theirs.conv1 = nn.Conv2d(3, 64, kernel_size=3, stride=1, padding=2, bias=False)
    theirs.maxpool = nn.Identity()  # type: ignore[assignment]
    theirs.fc = nn.Identity()  # type: ignore[assignment]
    images = torch.randn(2, 3, 32, 32)
    for arch in ("torchvision/resnet18", "resnet18"):
        ours = built(arch, "small_padding2")
        ours.model.load_state_dict(theirs.state_dict())
        torch.testing.assert_close(ours(images), theirs.eval()(images))
        assert [side for _, side in ours.facts(32).stages] == [34, 17, 9, 5]


@pytest.mark.parametrize(
    ("arch", "options", "message"),
    [
        ("test_vit", {"stem": "small"}, "families: ResNet .*options `img_size` and `patch_size`"),
        ("test_convnext", {"stem": "small"}, "test_convnext has no stem that can be made smaller"),
        ("torchvision/vgg11", {"stem": "small"}, "has no stem that can be made smaller"),
        ("resnetblur18", {"stem": "smal"}, "no such stem.*Did you mean 'small'"),
        ("resnet18", {"stem": ["small"]}, "no such stem"),
        ("resnet18", {"stem": "small", "replace_stem_pool": True}, "no stem that can be made smaller"),
    ],
)
def test_where_there_is_none_it_is_said(arch: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=rf"teacher\.options\.stem: .*{message}"):
        check_arch(arch, "teacher", options)


def test_the_model_s_own_options_pass_on() -> None:
    backbone = built("test_efficientnet", "small", channel_multiplier=0.5)
    assert backbone.feature_dim == 128 and backbone.map_size(32) == 2
    with pytest.raises(UserError, match=re.escape("student.options: test_efficientnet cannot be built")):
        built("test_efficientnet", "small", chanel_multiplier=0.5)


def test_a_checkpoint_with_such_a_stem_is_a_teacher(tmp_path: Path) -> None:
    theirs = torchvision.models.resnet18(weights=None)
    theirs.conv1 = nn.Conv2d(3, 64, kernel_size=3, stride=1, padding=2, bias=False)
    theirs.maxpool = nn.Identity()  # type: ignore[assignment]
    theirs.fc = nn.Identity()  # type: ignore[assignment]
    path = tmp_path / "cifar.ckpt"
    torch.save({"state_dict": theirs.state_dict()}, path)
    stem = {"stem": "small_padding2"}
    spec = TeacherSpec(arch="torchvision/resnet18", options=stem, checkpoint=path)
    check_teacher(spec, frozenset({"teacher"}))
    teacher = load_teacher(spec, path)
    images = torch.randn(2, 3, 32, 32)
    torch.testing.assert_close(teacher.features(images), theirs.eval()(images))
    with pytest.raises(UserError, match=r"teacher\.arch.*conv1\.weight, \(64, 3, 3, 3\) in the file"):
        check_teacher(spec.model_copy(update={"options": {}}), frozenset({"teacher"}))
