"""Counted arithmetic: against layers worked out by hand, and what makes two trials equal."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tiny_trials import tiny
from torch.utils.flop_counter import FlopCounterMode

from trainables.networks.backbones import build_backbone
from trainables.planning.compute import equal_epochs, step_flops
from trainables.spec.trial import ModelSpec

torch.set_num_threads(1)


def forward_flops(spec: ModelSpec, images: int) -> float:
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        build_backbone(spec, 0).eval()(torch.randn(images, 3, 16, 16))
    return float(counter.get_total_flops())


def test_moco_is_three_passes_of_the_query_and_one_of_the_key() -> None:
    trial = tiny("moco")
    backbone = build_backbone(trial.student)
    one = forward_flops(trial.student, 128)
    d, dim, size, batch = backbone.feature_dim, 128, trial.config["queue_size"], 128
    hidden = max(1, round(trial.config["head_ratio"] * d))
    head = 2 * batch * (d * hidden + hidden * dim)
    logits = 2 * batch * dim * size  # forward; its gradient reaches the query only
    # The first convolution has no gradient to pass on to the image.
    stem = 2 * batch * 8 * 8 * 3 * 9 * backbone.model.conv_stem.out_channels
    assert step_flops(trial) == pytest.approx(4 * (one + head) - stem + 2 * logits, rel=1e-6)


def test_flops_grow_with_the_batch_and_not_with_micro_batches() -> None:
    small, large = (tiny("moco", optim={"batch_size": size}) for size in (64, 256))
    assert step_flops(large) == pytest.approx(4 * step_flops(small))
    parts = tiny("moco", optim={"batch_size": 256, "accumulate": 4})
    assert step_flops(parts) == step_flops(large)


def test_anchors_cost_the_same_whatever_the_batch() -> None:
    """RRKD passes its anchors through the student at each step: so many images more, of no teacher."""
    teacher = {"arch": "test_resnet", "train": {"method": "moco", "preset": "digits", "epochs": 1}}

    def flops(config: dict[str, Any], **optim: Any) -> float:
        return step_flops(tiny("rrkd", teacher=teacher, config=config, optim=optim))

    anchors = {"anchors": "random", "anchor_count": 64}
    batch, fixed = flops({}, batch_size=64), flops(anchors, batch_size=64)
    # Forward, and backward for weights and inputs; the stem's input needs none, and V costs little.
    student = 3 * forward_flops(tiny("moco").student, 64)
    assert fixed - batch == pytest.approx(student, rel=0.05)
    assert flops(anchors, batch_size=128) - fixed == pytest.approx(batch, rel=0.05)
    assert flops(anchors, batch_size=64, accumulate=2) - fixed == pytest.approx(student, rel=0.05)


def test_a_trial_equals_itself_and_costs_more_than_its_baseline() -> None:
    retro, moco = tiny("retro", epochs=16), tiny("moco", epochs=16)
    assert equal_epochs(moco, moco) == 16
    epochs = equal_epochs(retro, moco)
    assert epochs > 32  # two views through student and mean student, and the teacher on top
    assert equal_epochs(moco, retro) == pytest.approx(16 * 16 / epochs, abs=1)
    # Twice the batch is half the steps: an epoch costs the same.
    double: dict[str, Any] = {"optim": {"batch_size": 256}, "epochs": 16}
    assert equal_epochs(retro, tiny("moco", **double)) == pytest.approx(epochs, rel=0.2)


def test_counting_leaves_the_generators_alone() -> None:
    before = torch.get_rng_state()
    step_flops(tiny("moco"))
    assert torch.equal(torch.get_rng_state(), before)
