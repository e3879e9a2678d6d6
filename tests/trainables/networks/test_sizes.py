"""Sizes of networks: counted by hand, and the same as what a network really is."""

from __future__ import annotations

import pytest
import torch

from trainables.core.errors import UserError
from trainables.networks.backbones import build_backbone
from trainables.networks.sizes import network_size, student_size
from trainables.networks.small_networks import Resnet9
from trainables.spec.trial import ModelSpec

torch.set_num_threads(1)


def test_an_mlp_has_one_product_a_weight() -> None:
    size = network_size("raykd/mlp_32", 10)
    weights = 10 * 10 * 32 + 32 * 32
    assert (size.parameters, size.multiply_adds, size.features) == (weights + 64, weights, 32)
    assert (size.map_size, size.small_stem, size.options) == (0, False, {"side": 10})


def test_a_convolution_has_one_product_a_weight_and_position() -> None:
    size = network_size("raykd/resnet9", 16)
    stem, first = 3 * 9 * 32 * 16 * 16, 2 * 32 * 32 * 9 * 16 * 16
    # Two 3x3 convolutions and the shortcut, at half the side of the stage before.
    others = sum((c * c // 2 * 9 + c * c * 9 + c * c // 2) * s * s for c, s in ((64, 8), (128, 4), (256, 2)))
    assert size.multiply_adds == stem + first + others
    assert (size.parameters, size.features, size.map_size) == (1_226_400, 256, 2)
    # Depthwise: one kernel a channel, not one for each pair of channels.
    light = network_size("mobilenetv1_100", 32)
    products, side = 3 * 9 * 32 * 16 * 16, 16
    plan = ((32, 64, 1), (64, 128, 2), (128, 128, 1), (128, 256, 2), (256, 256, 1), (256, 512, 2))
    for into, out, stride in (*plan, *((512, 512, 1),) * 5, (512, 1024, 2), (1024, 1024, 1)):
        side //= stride
        products += (9 * into + into * out) * side * side
    assert (light.multiply_adds, light.map_size, light.small_stem) == (products, 1, True)


@pytest.mark.parametrize(
    "arch", ["test_resnet", "test_efficientnet", "test_vit", "test_mambaout", "torchvision/resnet18"]
)
def test_they_are_those_of_the_real_network(arch: str) -> None:
    size = network_size(arch, 32)
    backbone = build_backbone(ModelSpec(arch=arch, options=size.options), 0)
    assert size.parameters == sum(p.numel() for p in backbone.parameters())
    facts = backbone.facts(32)
    assert (size.features, size.map_size) == (facts.feature_dim, facts.map_size)


def test_a_transformer_is_told_the_size() -> None:
    size = network_size("vit_tiny_patch16_224", 32)
    assert (size.options, size.map_size, size.small_stem) == ({"img_size": 32}, 2, False)
    assert network_size("torchvision/vit_b_32", 64).options == {"image_size": 64}
    assert network_size("vit_tiny_patch16_224", 224).options == {}


def test_what_cannot_be_is_said_and_nothing_is_drawn() -> None:
    before = torch.get_rng_state()
    with pytest.raises(UserError, match=r"student\.arch: cannot take images of 16 px \(.+\)"):
        network_size("test_convnext", 16)
    with pytest.raises(UserError, match=r"no such architecture.*the nearest: raykd/mlp_32"):
        network_size("raykd/mlp_33", 16)
    network_size("resnet18", 16)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(
    ("arch", "params", "macs"),
    [
        ("mobilenetv3_large_100", 5.5e6, 219e6),  # Howard et al. 2019, table 3: 5.4 M and 219 M
        ("efficientnet_b0", 5.3e6, 0.39e9),  # Tan and Le 2019, table 2
        ("resnet50", 25.6e6, 4.1e9),  # torchvision's table of weights
        ("mobilenetv2_100", 3.5e6, 0.30e9),  # Sandler et al. 2018, table 4
    ],
)
def test_a_students_size_is_the_published_one_without_its_classifier(
    arch: str, params: float, macs: float
) -> None:
    size = student_size(ModelSpec(arch=arch), 224)
    classifier = 1000 * network_size(arch, 224).features
    assert size.params + classifier + 1000 == pytest.approx(params, rel=0.02)
    assert size.macs + classifier == pytest.approx(macs, rel=0.02)


def test_a_students_size_is_that_of_its_options_and_images() -> None:
    plain, small = (student_size(ModelSpec(arch="resnet18", options=o), 32) for o in ({}, {"stem": "small"}))
    assert small.macs > 10 * plain.macs  # its maps are four times as wide and high
    grey = student_size(ModelSpec(arch="test_resnet", options={"in_chans": 1}), 32)
    assert grey.params < student_size(ModelSpec(arch="test_resnet"), 32).params
    assert (
        student_size(ModelSpec(arch="test_resnet"), 64).params == network_size("test_resnet", 32).parameters
    )


@pytest.mark.parametrize(
    ("spec", "field"),
    [
        (ModelSpec(arch="vit_tiny_patch16_224"), "student.arch"),
        (ModelSpec(arch="raykd/mlp_32", options={"side": 10}), "student.options.side"),
        (ModelSpec(arch="test_resnt"), "student.arch"),
        (ModelSpec(arch="test_resnet", options={"widht": 2}), "student.options"),
    ],
)
def test_a_student_that_cannot_take_the_images_is_refused(spec: ModelSpec, field: str) -> None:
    with pytest.raises(UserError) as error:
        student_size(spec, 32)
    assert error.value.field == field


def test_a_network_that_needs_numbers_is_measured_on_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """A network of a user's own may look at its values, which the meta device does not have."""
    wanted = student_size(ModelSpec(arch="raykd/resnet9"), 32)

    forward = Resnet9.forward

    def looks(self: Resnet9, images: torch.Tensor) -> torch.Tensor:
        assert float(images.abs().sum()) >= 0
        return forward(self, images)

    monkeypatch.setattr(Resnet9, "forward", looks)
    student_size.cache_clear()
    assert student_size(ModelSpec(arch="raykd/resnet9"), 32) == wanted
