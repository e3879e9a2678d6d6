"""Backbones: features and maps of every family, seeds, and what is refused."""

from __future__ import annotations

import copy
import gc
import weakref
from typing import Any

import pytest
import torch

from trainables.core.errors import UserError
from trainables.networks.backbones import Backbone, backbone_facts, build_backbone, check_arch, seeded
from trainables.spec.trial import ModelSpec

torch.set_num_threads(1)

# arch, options, image size -> (feature_dim, map_channels, map_size, features are the map's mean)
FAMILIES: list[tuple[str, dict[str, Any], int, tuple[int, int, int, bool]]] = [
    ("test_resnet", {}, 64, (96, 96, 2, True)),
    ("test_efficientnet", {"channel_multiplier": 0.5}, 48, (128, 128, 2, True)),
    ("test_vit", {}, 48, (64, 64, 3, False)),  # class token first
    ("test_vit3", {"img_size": 32}, 32, (96, 96, 2, False)),  # attention pooling
    ("test_mambaout", {}, 64, (256, 64, 2, False)),  # channels last
    ("test_convnext", {}, 64, (64, 64, 2, False)),  # norm after pooling
    ("mobilenetv3_small_050", {}, 64, (1024, 288, 2, False)),  # convolution after pooling
    ("torchvision/resnet18", {}, 64, (512, 512, 2, True)),
    ("torchvision/mobilenet_v2", {"width_mult": 0.25}, 64, (1280, 1280, 2, True)),
    ("torchvision/mobilenet_v3_small", {}, 64, (576, 576, 2, True)),
    ("torchvision/densenet121", {}, 64, (1024, 1024, 2, True)),
    ("torchvision/shufflenet_v2_x0_5", {}, 64, (1024, 1024, 2, True)),
    ("torchvision/mnasnet0_5", {}, 64, (1280, 1280, 2, True)),
    ("torchvision/regnet_x_400mf", {}, 64, (400, 400, 2, True)),
    ("torchvision/squeezenet1_1", {}, 64, (512, 512, 3, True)),
    ("torchvision/googlenet", {}, 64, (1024, 1024, 2, True)),
    ("torchvision/inception_v3", {}, 128, (2048, 2048, 2, True)),
    ("torchvision/swin_t", {}, 64, (768, 768, 2, True)),  # channels last
]


@pytest.mark.parametrize(("arch", "options", "side", "expected"), FAMILIES, ids=[f[0] for f in FAMILIES])
def test_features_and_map(
    arch: str, options: dict[str, Any], side: int, expected: tuple[int, int, int, bool]
) -> None:
    backbone = build_backbone(ModelSpec(arch=arch, options=options), seed=0)
    backbone.eval()
    images = torch.randn(2, 3, side, side)
    features, found = backbone(images), backbone.map(images)
    facts = backbone.facts(side)
    assert (facts.feature_dim, facts.map_channels, facts.map_size, facts.mean_pool) == expected
    assert (backbone.feature_dim, backbone.map_channels, backbone.map_size(side)) == expected[:3]
    assert features.shape == (2, expected[0])
    assert found.shape == (2, expected[1], expected[2], expected[2])
    if expected[3]:
        torch.testing.assert_close(found.mean((2, 3)), features, rtol=1e-4, atol=1e-5)
    # Every weight takes part: under DDP one that does not would be waited for.
    features.square().sum().backward()
    assert [name for name, p in backbone.named_parameters() if p.grad is None] == []


def test_map_keeps_the_place_of_tokens_and_channels_last() -> None:
    """An image that changes in one corner changes the map there most."""
    for arch, side in (("test_vit", 64), ("test_mambaout", 128), ("test_resnet", 128)):
        backbone = build_backbone(ModelSpec(arch=arch), seed=0).eval()
        image = torch.randn(1, 3, side, side)
        changed = image.clone()
        changed[..., : side // 4, -side // 4 :] += 3  # top right
        change = (backbone.map(changed) - backbone.map(image)).square().sum(1)[0]
        size = len(change)
        row, column = divmod(int(change.argmax()), size)
        assert row < size / 2 <= column, arch


def test_what_the_map_leaves_out_is_known() -> None:
    assert backbone_facts(ModelSpec(arch="test_resnet"), 64).after_map == ()
    norm = backbone_facts(ModelSpec(arch="test_convnext"), 64)
    assert norm.after_map == ("head.norm.weight", "head.norm.bias") and norm.weights_after_map == ()
    late = backbone_facts(ModelSpec(arch="mobilenetv3_small_050"), 64)
    assert late.weights_after_map == ("conv_head.weight",)


def test_the_seed_gives_the_bits_and_no_generator_moves() -> None:
    spec = ModelSpec(arch="test_resnet")
    torch.manual_seed(7)
    before = torch.get_rng_state()
    one, two, other = (build_backbone(spec, seed) for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), before)
    assert all(
        torch.equal(a, b) for a, b in zip(one.state_dict().values(), two.state_dict().values(), strict=True)
    )
    assert not torch.equal(one.model.conv1[0].weight, other.model.conv1[0].weight)  # type: ignore[index,union-attr,operator]
    without = build_backbone(spec)  # from the global generator
    assert not torch.equal(torch.get_rng_state(), before)
    assert isinstance(without, Backbone)


def test_seeded_is_left_as_entered_after_an_error() -> None:
    before = torch.get_rng_state()
    with pytest.raises(ZeroDivisionError), seeded(3):
        torch.rand(2)
        raise ZeroDivisionError
    assert torch.equal(torch.get_rng_state(), before)


def test_looking_at_a_backbone_changes_nothing() -> None:
    backbone = build_backbone(ModelSpec(arch="test_efficientnet"), 0).train()
    before = {name: value.clone() for name, value in backbone.state_dict().items()}
    rng = torch.get_rng_state()
    backbone.facts(32)
    assert all(torch.equal(before[name], value) for name, value in backbone.state_dict().items())
    assert all(module.training for module in backbone.modules())
    assert all(p.grad is None for p in backbone.parameters()) and torch.equal(torch.get_rng_state(), rng)


@pytest.mark.parametrize(
    ("arch", "options", "message"),
    [
        ("test_resent", {}, r"student\.arch: no such architecture.*test_resnet"),
        ("torchvision/resnet19", {}, r"student\.arch: no such.*torchvision/resnet18"),
        ("no/such/thing", {}, r"a timm model name, torchvision/NAME or raykd/NAME"),
        ("test_resnet", {"chanels": [8]}, r"student\.options: test_resnet cannot be built.*chanels"),
        ("test_resnet", {"num_classes": 5}, r"student\.options\.num_classes: is raykd's own"),
        ("torchvision/shufflenet_v2_x0_5", {"dropuot": 1}, r"student\.options: .*dropuot"),
    ],
)
def test_wrong_architectures_are_refused(arch: str, options: dict[str, Any], message: str) -> None:
    for _ in range(2):  # remembered answers are the same
        with pytest.raises(UserError, match=message):
            check_arch(arch, "student", options)
    with pytest.raises(UserError, match=message):
        build_backbone(ModelSpec(arch=arch, options=options), 0)


def test_architectures_that_do_not_fit_are_refused() -> None:
    check_arch("resnet50.a1_in1k", "teacher")  # a timm name may carry a tag of weights
    with pytest.raises(UserError, match=r"student\.arch: where this torchvision model has its features"):
        build_backbone(ModelSpec(arch="torchvision/maxvit_t"), 0)
    with pytest.raises(UserError, match=r"teacher\.arch: cannot take images of 16 px"):
        backbone_facts(ModelSpec(arch="test_convnext"), 16, "teacher")
    crossed = build_backbone(ModelSpec(arch="crossvit_9_240"), 0).eval()
    assert (
        crossed(torch.zeros(1, 3, 240, 240)).shape == (1, crossed.feature_dim) and crossed.map_channels == 0
    )
    with pytest.raises(UserError, match=r"has no single feature map"):
        crossed.map(torch.zeros(1, 3, 240, 240))


# arch, options, image size -> (channels, side) of each stage
STAGES: list[tuple[str, dict[str, Any], int, tuple[tuple[int, int], ...]]] = [
    ("test_resnet", {}, 64, ((32, 16), (48, 8), (192, 4), (96, 2))),
    ("test_efficientnet", {}, 64, ((24, 16), (32, 8), (48, 4), (64, 2))),
    ("test_vit", {}, 48, ((64, 3),) * 4),
    ("test_mambaout", {}, 64, ((16, 16), (32, 8), (48, 4), (64, 2))),  # channels last
    ("mobilenetv3_small_050", {}, 64, ((8, 16), (16, 8), (24, 4), (288, 2))),
    ("torchvision/resnet18", {}, 64, ((64, 16), (128, 8), (256, 4), (512, 2))),
    ("torchvision/mobilenet_v2", {"width_mult": 0.25}, 64, ((8, 16), (8, 8), (24, 4), (1280, 2))),
    ("torchvision/densenet121", {}, 64, ((256, 16), (512, 8), (1024, 4), (1024, 2))),
    ("torchvision/shufflenet_v2_x0_5", {}, 64, ((24, 16), (48, 8), (96, 4), (1024, 2))),
    ("torchvision/mnasnet0_5", {}, 64, ((16, 16), (24, 8), (48, 4), (1280, 2))),
    ("torchvision/regnet_x_400mf", {}, 64, ((32, 16), (64, 8), (160, 4), (400, 2))),
    ("torchvision/swin_t", {}, 64, ((96, 16), (192, 8), (384, 4), (768, 2))),
    ("torchvision/vit_b_32", {"image_size": 64}, 64, ((768, 2),) * 4),
    ("crossvit_9_240", {}, 240, ()),
]


@pytest.mark.parametrize(("arch", "options", "side", "expected"), STAGES, ids=[s[0] for s in STAGES])
def test_stages(arch: str, options: dict[str, Any], side: int, expected: tuple[tuple[int, int], ...]) -> None:
    backbone = build_backbone(ModelSpec(arch=arch, options=options), seed=0)
    assert backbone.facts(side).stages == expected
    images = torch.randn(2, 3, side, side)
    backbone.eval()
    if not expected:
        with pytest.raises(UserError, match=r"student\.arch: has no feature maps"):
            backbone.with_maps(images)
        return
    features, maps = backbone.with_maps(images)
    assert [tuple(one.shape) for one in maps] == [(2, c, s, s) for c, s in expected]
    assert torch.equal(features, backbone(images))
    first = next(p for p in backbone.parameters() if p.ndim > 1)
    for one in maps:
        assert torch.autograd.grad(one.square().sum(), first, retain_graph=True)[0].abs().sum() > 0


def test_stage_maps_are_what_the_layers_give() -> None:
    images = torch.randn(2, 3, 64, 64)
    plain: Any = build_backbone(ModelSpec(arch="torchvision/resnet18"), seed=0).eval()
    model = plain.model
    one = model.layer1(model.maxpool(model.relu(model.bn1(model.conv1(images)))))
    two = model.layer2(one)
    _, maps = plain.with_maps(images)
    assert torch.equal(maps[0], one) and torch.equal(maps[1], two)
    assert torch.equal(maps[3], plain.map(images))
    vit: Any = build_backbone(ModelSpec(arch="test_vit"), seed=0).eval()
    seen: list[torch.Tensor] = []
    handle = vit.model.blocks[-1].register_forward_hook(lambda *given: seen.append(given[2]))
    _, maps = vit.with_maps(images)
    handle.remove()
    tokens = seen[0][:, vit.model.num_prefix_tokens :]  # row by row
    assert torch.equal(maps[-1][0, :, 1, 2], tokens[0, 1 * 4 + 2])


def test_twelve_blocks_give_every_third() -> None:
    backbone = build_backbone(ModelSpec(arch="vit_tiny_patch16_224", options={"img_size": 32}), seed=0)
    assert [stage.module for stage in backbone.stages] == ["blocks.2", "blocks.5", "blocks.8", "blocks.11"]


def _hooks(backbone: Backbone) -> int:
    return sum(len(module._forward_hooks) for module in backbone.modules())


def test_maps_in_every_way_of_running() -> None:
    backbone = build_backbone(ModelSpec(arch="test_resnet"), seed=0)
    images = torch.randn(4, 3, 64, 64)
    twin = copy.deepcopy(backbone)
    backbone.train(), twin.train()
    assert torch.equal(backbone.with_maps(images)[0], twin(images))  # batch statistics too
    for name, value in twin.state_dict().items():
        assert torch.equal(backbone.state_dict()[name], value)
    # A copy gives its own maps.
    with torch.no_grad():
        for parameter in twin.parameters():
            parameter.zero_()
    assert twin.with_maps(images)[1][0].abs().sum() == 0 < backbone.with_maps(images)[1][0].abs().sum()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        features, maps = backbone.eval().with_maps(images)
        assert torch.equal(features, backbone(images)) and all(one.shape[0] == 4 for one in maps)
    backbone.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    last = images.to(memory_format=torch.channels_last)
    twin.load_state_dict(backbone.state_dict())
    torch.testing.assert_close(backbone.with_maps(last)[1], twin.eval().with_maps(images)[1])
    assert _hooks(backbone) == _hooks(twin) == 0


def test_no_map_outlives_its_use() -> None:
    backbone = build_backbone(ModelSpec(arch="test_resnet"), seed=0).eval()
    with pytest.raises(RuntimeError):
        backbone.with_maps(torch.randn(1, 5, 64, 64))
    assert _hooks(backbone) == 0
    gc.disable()  # so that only counting of references frees
    try:
        with torch.no_grad():
            gone = weakref.ref(backbone.with_maps(torch.randn(1, 3, 64, 64))[1][1])
        assert gone() is None
    finally:
        gc.enable()
