"""Host networks: the student is their slice, whatever the family; what cannot be one is refused."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from small_methods import STUDENT
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.flop_counter import FlopCounterMode

from trainables.core.errors import UserError
from trainables.networks.backbones import Backbone, build_backbone, seeded
from trainables.networks.channel_groups import channel_ends
from trainables.networks.slimming import Host, build_host, check_host, check_host_of
from trainables.spec.trial import ModelSpec

SIDE = 32
RESNET18 = "torchvision ResNet"  # too wide for more than one test
SPECS = {
    "timm EfficientNet": STUDENT,
    "timm ResNet": ModelSpec(arch="test_resnet", options={"channels": [8, 12, 16, 24], "stem_width": 8}),
    "timm MobileNetV3": ModelSpec(arch="mobilenetv3_small_050"),
    "torchvision MobileNetV2": ModelSpec(arch="torchvision/mobilenet_v2", options={"width_mult": 0.25}),
}
FAMILIES = list(SPECS)


def built(name: str) -> Backbone:
    return build_backbone(ModelSpec(arch="torchvision/resnet18") if name == RESNET18 else SPECS[name], 0)


def hosted(student: Backbone, width: float = 2.0, slice: Any = "index", seed: int = 1) -> Host:
    with seeded(seed):
        return build_host(student, width, SIDE, slice)


def images(size: int = 4, seed: int = 0) -> Tensor:
    return torch.randn(size, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(seed))


def slimmed(host: Host, student: Backbone, x: Tensor) -> Tensor:
    """The slimmed pass by its definition: every layer of the host without its further output channels."""
    own = dict(student.model.named_modules())
    hooks = []
    for name, module in host.skeleton.named_modules():
        if isinstance(module, nn.Conv2d | nn.Linear | _BatchNorm):
            kept = next(own[name].parameters()).shape[0]

            def cut(_module: nn.Module, _given: Any, out: Tensor, kept: int = kept) -> Tensor:
                return torch.cat([out[:, :kept], torch.zeros_like(out[:, kept:])], 1)

            hooks.append(module.register_forward_hook(cut))
    out = host(student, x)
    for hook in hooks:
        hook.remove()
    return out


@pytest.mark.parametrize(
    ("name", "slice"),
    [*((name, slice) for name in FAMILIES for slice in ("index", "l1_mask")), (RESNET18, "l1_mask")],
)
def test_the_student_is_the_slimmed_pass_of_the_host(name: str, slice: str) -> None:
    student = built(name)
    host = hosted(student, 2.0 if slice == "index" else 1.5, slice)
    with torch.no_grad():
        for parameter in [*student.parameters(), *host.parameters()]:
            if parameter.ndim == 1:  # as after a training: no branch scaled by 0
                parameter.uniform_(0.5, 1.5)
    for training in (True, False):
        student.train(training), host.train(training)
        d = student.feature_dim
        features, wide = student(images()), slimmed(host, student, images())
        assert wide.shape[1] == host.feature_dim and not wide[:, d:].any()
        torch.testing.assert_close(wide[:, :d], features, rtol=1e-4, atol=1e-5 * features.abs().max().item())


@pytest.mark.parametrize("name", FAMILIES)
def test_the_host_is_wider_in_every_layer_and_the_student_as_it_was(name: str) -> None:
    before, student = built(name), built(name)
    host = hosted(student, 2.0)
    whole = host.weights(student)
    for key, own in student.model.named_parameters():
        assert own.shape == before.model.get_parameter(key).shape
        assert whole[key].shape[0] == 2 * own.shape[0]
        assert torch.equal(whole[key][tuple(slice(n) for n in own.shape)], own)
    assert student.model.state_dict().keys() == before.model.state_dict().keys()
    for (key, now), then in zip(host.skeleton.named_buffers(), before.model.buffers(), strict=True):
        assert now.shape == (then.shape if then.ndim == 0 else (2 * len(then),)), key


def test_a_host_is_the_network_that_the_family_builds_at_that_width() -> None:
    options = {"channels": [16, 24, 32, 48], "stem_width": 16}
    student, family = built("timm ResNet"), build_backbone(ModelSpec(arch="test_resnet", options=options), 3)
    host = hosted(student, 2.0).eval()
    whole = host.weights(student)
    fresh = {key: p.detach().clone() for key, p in family.model.named_parameters()}
    family.model.load_state_dict(whole, strict=False)  # all but the statistics, which are fresh in both
    family.eval()
    torch.testing.assert_close(host(student, images()), family(images()))
    with FlopCounterMode(display=False) as counted, torch.no_grad():
        host(student, images())
    with FlopCounterMode(display=False) as expected, torch.no_grad():
        family(images())
    assert counted.get_total_flops() == expected.get_total_flops()
    for key, parameter in whole.items():  # initialised as large as the family's, and norms to the same values
        if parameter.ndim == 1:
            assert torch.equal(parameter, fresh[key])
        elif parameter.shape[1] > 3:
            assert parameter.std().item() == pytest.approx(fresh[key].std().item(), rel=0.12), key


def test_gradients_of_both_passes_meet_in_the_student() -> None:
    student = built("timm EfficientNet")
    host = hosted(student)
    parameters = dict(student.model.named_parameters())
    wide = torch.autograd.grad(host(student, images()).square().sum(), [*parameters.values()])
    slim = torch.autograd.grad(student(images()).square().sum(), [*parameters.values()])
    (host(student, images()).square().sum() + student(images()).square().sum()).backward()
    for (key, parameter), one, two in zip(parameters.items(), wide, slim, strict=True):
        assert one.any() and parameter.grad is not None
        torch.testing.assert_close(parameter.grad, one + two, rtol=1e-3, atol=1e-4, msg=key)
    assert all(p.grad is not None and p.grad.any() for p in host.parameters())


def test_statistics_are_each_ones_own() -> None:
    student = built("timm EfficientNet")
    host = hosted(student).train()
    student.train()
    start = copy.deepcopy(dict(student.named_buffers()))
    host(student, images())
    assert all(torch.equal(now, start[key]) for key, now in student.named_buffers())
    held = copy.deepcopy(dict(host.named_buffers()))
    student(images())
    assert all(torch.equal(now, held[key]) for key, now in host.named_buffers())
    slim, wide = student.model.bn2.running_var, host.skeleton.bn2.running_var[: student.feature_dim]
    assert not torch.allclose(slim, wide)  # of one image, by other channels before it


@pytest.mark.parametrize("name", FAMILIES)
def test_ranking_by_norm_reorders_the_host_and_changes_no_function(name: str) -> None:
    plain, ranked = built(name), built(name)
    one, two = hosted(plain, 2.0, "index").eval(), hosted(ranked, 2.0, "l1_mask").eval()
    features, reordered = one(plain, images()), two(ranked, images())
    torch.testing.assert_close(reordered.sort(1).values, features.sort(1).values, rtol=1e-3, atol=1e-4)
    assert not torch.allclose(reordered, features)


def test_the_kept_filters_are_the_largest_of_their_group() -> None:
    student = built("timm EfficientNet")
    whole = hosted(student, 2.0, "l1_mask").weights(student)
    ends = channel_ends(student.model, images())
    groups: dict[int, Tensor] = {}
    for key, (_, group) in ends.items():
        if whole[f"{key}.weight"].ndim > 1:
            norm = whole[f"{key}.weight"].detach().abs().flatten(1).sum(1)
            groups[group] = groups.get(group, torch.zeros(len(norm))) + norm
    # The stem (whose channels a residual block keeps), the expansions, projections, gates, the last layer.
    assert len(groups) > 6
    for norm in groups.values():
        assert (norm.diff() <= 1e-5).all()


def test_layers_that_meet_share_their_channels() -> None:
    ends = channel_ends(built("timm ResNet").model, images())
    # A residual sum: what the shortcut writes is what the branch writes.
    assert ends["layer2.0.downsample.1"][1] == ends["layer2.0.conv2"][1] == ends["layer2.0.bn2"][1]
    assert ends["layer2.0.conv1"][0] == ends["layer1.0.conv2"][1] != ends["layer1.0.conv1"][1]
    assert ends["conv1.0"][0] is None
    ends = channel_ends(built("timm EfficientNet").model, images())
    block = "blocks.3.0"  # expansion, depthwise, gate: one group; the gate's inner channels another
    kept = {ends[f"{block}.{layer}"][1] for layer in ("conv_pw", "bn1", "conv_dw", "bn2", "se.conv_expand")}
    assert len(kept) == 1 and ends[f"{block}.se.conv_reduce"][1] not in kept


def test_grouped_convolutions_get_more_groups_and_cannot_be_ranked() -> None:
    options = {"layers": [1] * 4, "channels": [64] * 4}
    student = build_backbone(ModelSpec(arch="resnext50_32x4d", options=options), 0)
    host = hosted(student, 1.5)
    assert host.skeleton.layer1[0].conv2.groups == 48
    with pytest.raises(UserError, match=r"config\.slice: .*layer1\.0\.conv2 is a convolution of 32 groups"):
        check_host(student, 2.0, SIDE, "l1_mask")


@pytest.mark.parametrize(
    ("arch", "why"),
    [
        ("test_vit", "has a VisionTransformer"),
        ("test_convnext", r"has a LayerNorm2d \(stem\.1\)"),
        ("torchvision/densenet121", "mix or regroup channels"),  # concatenates
        ("ghostnet_050", "weight of size"),  # concatenates, and cuts to a fixed number
    ],
)
def test_what_cannot_be_a_slice_is_refused(arch: str, why: str) -> None:
    with pytest.raises(UserError, match=rf"student\.arch: cannot be the slice of a wider network: .*{why}"):
        check_host_of(ModelSpec(arch=arch), 2.0, 160 if arch == "test_vit" else SIDE, "index")


def test_a_width_without_whole_channels_is_refused_with_those_that_have() -> None:
    # The narrowest layer, a gate's, has 2 channels.
    with pytest.raises(UserError, match=r"config\.host_width: .*a whole number or a multiple of 1/2"):
        check_host_of(STUDENT, 1.3, SIDE, "index")
    check_host_of(STUDENT, 1.5, SIDE, "index")


def test_the_seed_gives_the_bits_and_checking_moves_no_generator() -> None:
    one, two = (hosted(built("timm EfficientNet"), seed=seed) for seed in (1, 1))
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), two.parameters(), strict=True))
    before = torch.get_rng_state()
    check_host(built("timm EfficientNet"), 2.0, SIDE, "l1_mask")
    assert torch.equal(torch.get_rng_state(), before)
