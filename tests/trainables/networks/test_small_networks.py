"""RRKD's networks and MLPs: sizes counted by hand, what they compute, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from tiny_trials import run, tiny, workspace
from torch.nn import functional as F

from trainables.core.errors import UserError
from trainables.networks.backbones import backbone_facts, build_backbone, check_arch
from trainables.planning.check import TrialChecker
from trainables.planning.compute import step_flops
from trainables.spec.trial import ModelSpec

torch.set_num_threads(1)


def parameters(arch: str, **options: Any) -> int:
    backbone = build_backbone(ModelSpec(arch=f"raykd/{arch}", options=options), 0)
    return sum(p.numel() for p in backbone.parameters())


def test_sizes_are_those_of_rrkd() -> None:
    pixels = 28 * 28
    assert parameters("mlp_1200") == pixels * 1200 + 1200 + 1200 * 1200 + 1200
    assert parameters("mlp_32") == pixels * 32 + 32 + 32 * 32 + 32
    assert parameters("ae_64") == pixels * 128 + 128 + 128 * 64 + 64
    assert parameters("ae_32") == pixels * 64 + 64 + 64 * 32 + 32
    assert parameters("mlp", hidden=[7, 5, 3], side=4, colour=True) == 48 * 7 + 7 + 7 * 5 + 5 + 5 * 3 + 3
    # Basic blocks at 32, 64, 128 and 256 channels; a norm has two weights a channel.
    stem = 3 * 9 * 32 + 64
    first = 2 * (32 * 32 * 9 + 64)
    others = sum(c * c // 2 * 9 + c * c * 9 + c * c // 2 + 3 * 2 * c for c in (64, 128, 256))
    assert parameters("resnet9") == stem + first + others
    assert parameters("resnet9", width=1) > 3.9 * parameters("resnet9")


@pytest.mark.parametrize(
    ("arch", "features"), [("mlp_1200", 1200), ("mlp_32", 32), ("ae_64", 64), ("ae_32", 32)]
)
def test_rrkd_s_embedding_is_the_second_linear_layer_s_output(arch: str, features: int) -> None:
    backbone = build_backbone(ModelSpec(arch=f"raykd/{arch}"), 0).eval()
    images = torch.randn(5, 1, 28, 28).expand(-1, 3, -1, -1)
    one, two = (module for module in backbone.modules() if isinstance(module, torch.nn.Linear))
    expected = two(F.relu(one(images[:, 0].flatten(1))))
    torch.testing.assert_close(backbone(images), expected)
    assert backbone.feature_dim == features and (expected < 0).any()  # no ReLU behind it
    assert (backbone.map_channels, backbone.facts(28).stages) == (0, ())
    dropout = [m.p for m in backbone.modules() if isinstance(m, torch.nn.Dropout)]
    assert dropout == [0.5]  # between the two, none behind the embedding
    backbone.train()
    assert not torch.equal(backbone(images), backbone(images))


def test_an_mlp_s_features_are_its_last_activations() -> None:
    spec = ModelSpec(arch="raykd/mlp", options={"hidden": [6, 4], "side": 2, "colour": True})
    backbone = build_backbone(spec, 0)  # without dropout, train mode is no other
    images = torch.randn(8, 3, 2, 2)
    one, two = (module for module in backbone.modules() if isinstance(module, torch.nn.Linear))
    torch.testing.assert_close(backbone(images), F.relu(two(F.relu(one(images.flatten(1))))))
    grey = build_backbone(ModelSpec(arch="raykd/mlp", options={"side": 2}), 0)
    torch.testing.assert_close(grey(images), grey(images.mean(1, keepdim=True).expand(-1, 3, -1, -1)))


def test_resnet9_computes_what_its_definition_says() -> None:
    backbone: Any = build_backbone(ModelSpec(arch="raykd/resnet9", options={"width": 0.125}), 0).eval()
    model, images = backbone.model, torch.randn(2, 3, 12, 12)
    maps = F.relu(model.bn1(F.conv2d(images, model.conv1.weight, padding=1)))
    for stage, stride in (("layer1", 1), ("layer2", 2), ("layer3", 2), ("layer4", 2)):
        block = model.get_submodule(stage)[0]
        inner = F.relu(block.bn1(F.conv2d(maps, block.conv1.weight, stride=stride, padding=1)))
        inner = block.bn2(F.conv2d(inner, block.conv2.weight, padding=1))
        same = stage == "layer1"
        assert (len(block.shortcut) == 0) == same
        short = maps if same else block.shortcut[1](F.conv2d(maps, block.shortcut[0].weight, stride=stride))
        maps = F.relu(inner + short)
    torch.testing.assert_close(backbone.map(images), maps)
    torch.testing.assert_close(backbone(images), maps.mean((2, 3)))
    facts = backbone.facts(12)
    assert facts.stages == ((8, 12), (16, 6), (32, 3), (64, 2))
    assert (facts.feature_dim, facts.map_size, facts.mean_pool) == (64, 2, True)
    lost = build_backbone(ModelSpec(arch="raykd/resnet9", options={"width": 0.125, "stem_relu": False}), 0)
    lost.model.load_state_dict(model.state_dict())
    assert not torch.allclose(lost.eval()(images), backbone(images))
    # Where the first norm gives no negative number, its ReLU does nothing.
    with torch.no_grad():
        model.bn1.bias.fill_(50.0)
    lost.model.load_state_dict(model.state_dict())
    torch.testing.assert_close(lost(images), backbone(images))


@pytest.mark.parametrize(
    ("arch", "options", "message"),
    [
        ("raykd/mlp_120", {}, r"student\.arch: no such architecture.*the nearest: raykd/mlp_1200"),
        ("raykd/resnet", {}, r"student\.arch: no such architecture.*raykd/resnet9"),
        ("raykd/mlp_32", {"sied": 16}, r"student\.options\.sied: no such field.*Did you mean 'side'"),
        ("raykd/mlp_32", {"hidden": [3]}, r"student\.options\.hidden: no such field"),
        ("raykd/mlp", {"hidden": []}, r"student\.options\.hidden: wrong value"),
        ("raykd/mlp", {"hidden": [8, 0]}, r"student\.options\.hidden\.1: wrong value \(got 0\)"),
        ("raykd/mlp", {"side": True}, r"student\.options\.side: wrong value.*a number"),
        ("raykd/ae_64", {"dropout": 1.0}, r"student\.options\.dropout: wrong value.*less than 1"),
        ("raykd/resnet9", {"width": "wide"}, r"student\.options\.width: wrong value.*a number"),
        ("raykd/resnet9", {"stem": "small"}, r"student\.options\.stem: raykd/resnet9 is made for small"),
    ],
)
def test_what_is_refused(arch: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        check_arch(arch, "student", options)


def test_another_image_size_names_the_option_to_set() -> None:
    with pytest.raises(UserError, match=r"teacher\.options\.side: .*of 28 px, and they have 16.*Expected 16"):
        backbone_facts(ModelSpec(arch="raykd/ae_64"), 16, "teacher")
    trial = tiny("moco", student={"arch": "raykd/mlp_32", "options": {"side": 28}})
    with pytest.raises(UserError, match=r"student\.options\.side"):
        TrialChecker().check(trial)
    TrialChecker().check(tiny("moco", student={"arch": "raykd/mlp_32", "options": {"side": 16}}))


def test_they_are_trained_taught_by_and_kept(tmp_path: Path) -> None:
    """Both roles, from the training of the teacher to the file of the best student."""
    trial = tiny(
        "disco",
        student={"arch": "raykd/mlp", "options": {"side": 16, "hidden": [24, 12]}},
        teacher={
            "arch": "raykd/resnet9",
            "options": {"width": 0.125},
            "train": {"method": "moco", "preset": "digits", "epochs": 1},
        },
        epochs=1,
    )
    place = workspace(tmp_path)
    log = run(trial, place)
    assert log.epochs == [1] and log.reports[0].metrics["score"] > 20  # of 100; chance is 10
    best = load_file(place.folder / "best.safetensors")
    backbone = build_backbone(trial.student, 1)
    before = backbone.model.state_dict()["layers.0.weight"].clone()
    backbone.model.load_state_dict(best)
    assert not torch.equal(before, backbone.model.state_dict()["layers.0.weight"])


def test_their_arithmetic_is_counted() -> None:
    """MoCo: forward and both gradients of the query, forward of the key."""
    trial = tiny("moco", student={"arch": "raykd/mlp", "options": {"side": 16, "hidden": [24, 12]}})
    batch, dim, size = 128, 128, trial.config["queue_size"]
    hidden = max(1, round(trial.config["head_ratio"] * 12))
    first = 2 * batch * 256 * 24
    one = first + 2 * batch * 24 * 12 + 2 * batch * (12 * hidden + hidden * dim)
    logits = 2 * batch * dim * size
    # The image needs no gradient, and neither does the queue.
    assert step_flops(trial) == pytest.approx(4 * one - first + 2 * logits, rel=1e-6)
