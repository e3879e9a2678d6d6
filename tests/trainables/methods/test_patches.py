"""Patches of two networks on one grid, and the maps that a network gives."""

from __future__ import annotations

import pytest
import torch
from by_numpy import upsampled
from torch import nn

from trainables.core.errors import UserError
from trainables.methods.parts.patches import (
    Projection,
    freeze_behind_map,
    joined_maps,
    on_one_grid,
    resampled,
)
from trainables.networks.backbones import build_backbone
from trainables.spec.trial import ModelSpec

NETWORKS = {
    "test_vit": ({"img_size": 32, "patch_size": 8}, 32),
    "deit_tiny_distilled_patch16_224": ({"img_size": 32, "depth": 3}, 32),
    "test_efficientnet": ({"channel_multiplier": 0.25}, 48),
    "test_resnet": ({}, 48),
    "mobilenetv3_small_050": ({}, 48),
    "torchvision/resnet18": ({}, 48),
    "raykd/resnet9": ({}, 32),
}


@pytest.mark.parametrize(("own", "side"), [(2, 5), (3, 6), (4, 2), (5, 3), (1, 4)])
def test_resampling_is_bilinear(own: int, side: int) -> None:
    x = torch.randn(2, 3, own, own)
    torch.testing.assert_close(
        resampled(x, (side, side)), torch.from_numpy(upsampled(x.numpy(), side)).float()
    )
    assert resampled(x, (own, own)) is x


def test_grids() -> None:
    small, large = torch.randn(2, 3, 2, 2), torch.randn(2, 5, 4, 4)
    s, t = on_one_grid(small, large, "teacher")
    assert s.shape == (2, 16, 3) and torch.equal(t, large.flatten(2).mT)
    s, t = on_one_grid(small, large, "smaller")
    # Half the side: the mean of each 2x2 patches.
    torch.testing.assert_close(t, large.view(2, 5, 2, 2, 2, 2).mean((3, 5)).flatten(2).mT)
    assert torch.equal(s, small.flatten(2).mT)
    for grid in ("teacher", "smaller"):  # a student with more patches comes down to its teacher's
        s, t = on_one_grid(large, small, grid)
        assert s.shape == (2, 4, 5) and torch.equal(t, small.flatten(2).mT)


def test_maps_of_two_depths_meet_at_the_last_one() -> None:
    first, last = torch.randn(2, 3, 4, 4), torch.randn(2, 5, 2, 2)
    joined = joined_maps([first, last])
    torch.testing.assert_close(joined[:, :3], first.view(2, 3, 2, 2, 2, 2).mean((3, 5)))
    assert torch.equal(joined[:, 3:], last)


def test_a_projection_works_on_each_patch() -> None:
    project = Projection(3, 5, layers=2, hidden=4)
    x = torch.randn(2, 3, 2, 2)
    one = project(x)[1, :, 0, 1]
    torch.testing.assert_close(one, project(x[1:, :, 0, 1])[0])
    first, norm, _, last = project.layers
    hidden = nn.functional.gelu(norm(x[1, :, 0, 1] @ first.weight.T + first.bias))
    torch.testing.assert_close(one, hidden @ last.weight.T + last.bias)


@pytest.mark.parametrize("arch", NETWORKS)
def test_one_pass_gives_features_and_the_last_maps(arch: str) -> None:
    options, side = NETWORKS[arch]
    network = build_backbone(ModelSpec(arch=arch, options=options), 0).eval()
    images = torch.randn(2, 3, side, side)
    passes: list[int] = []
    network.model.register_forward_pre_hook(lambda *_: passes.append(1))
    features, (earlier, last) = network.with_last_maps(images, 2)
    assert len(passes) == 1
    assert torch.equal(features, network(images)) and torch.equal(last, network.map(images))
    assert "forward_features" not in vars(network.model)  # it is as before
    if arch == "test_vit":
        kept = network.model.forward_intermediates(images, indices=2, norm=True, intermediates_only=True)
        assert torch.equal(earlier, kept[0]) and torch.equal(last, kept[1])
    elif not arch.startswith("deit"):
        assert torch.equal(earlier, network.with_maps(images)[1][-2])
    assert len(network.with_last_maps(images)[1]) == 1
    with pytest.raises(UserError, match=r"student\.arch: has \d+ maps, and 50 are asked for"):
        network.with_last_maps(images, 50)


def test_a_pass_that_fails_leaves_the_network_as_it_was() -> None:
    network = build_backbone(ModelSpec(arch="test_vit", options={"img_size": 32, "patch_size": 8}), 0)
    with pytest.raises(RuntimeError):
        network.with_last_maps(torch.randn(2, 5, 32, 32))
    assert "forward_features" not in vars(network.model)


def test_a_network_without_a_map_says_so() -> None:
    network = build_backbone(ModelSpec(arch="raykd/mlp_32", options={"side": 16}), 0)
    with pytest.raises(UserError, match=r"student\.arch: "):
        network.with_last_maps(torch.randn(2, 3, 16, 16))


def test_what_lies_behind_the_map_asks_for_no_gradient() -> None:
    student = build_backbone(
        ModelSpec(arch="vit_tiny_patch16_224", options={"img_size": 32, "depth": 2, "global_pool": "avg"}), 0
    )
    freeze_behind_map(student, 32)
    student.with_last_maps(torch.randn(2, 3, 32, 32))[1][-1].square().sum().backward()
    assert all((p.grad is not None) == p.requires_grad for p in student.parameters())
    assert not student.model.fc_norm.weight.requires_grad
