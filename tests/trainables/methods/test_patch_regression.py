"""Patch regression: loss by hand, a step by numpy from several maps, and networks that it cannot train."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from by_numpy import upsampled
from loss_checks import check_gradient, check_half_precision
from small_methods import STUDENT, TEACHER, context, make_batch, make_method, make_teacher
from torch import nn

from trainables.core.errors import UserError
from trainables.methods.patch_regression import PatchRegression, patch_loss
from trainables.networks.backbones import backbone_facts, build_backbone
from trainables.spec.trial import ModelSpec


def test_loss_by_hand() -> None:
    s, t = torch.tensor([[[3.0, 4.0], [1.0, 0.0]]]), torch.tensor([[[0.0, 2.0], [1.0, 1.0]]])
    assert patch_loss(s, t).item() == pytest.approx((9 + 4 + 0 + 1) / 4)
    # Of unit vectors |u - v|^2 = 2 - 2 cos; the cosines are 4 / 5 and 1 / sqrt 2.
    assert patch_loss(s, t, "unit").item() == pytest.approx((2 - 2 * 0.8 + 2 - 2 / 2**0.5) / 2)
    for kind in ("none", "unit"):
        assert patch_loss(t, t, kind).item() == pytest.approx(0.0, abs=1e-6)
        check_gradient(lambda *x, kind=kind: patch_loss(*x, kind), [s], [t])
        check_half_precision(lambda *x, kind=kind: patch_loss(*x, kind), s, t)
    assert patch_loss(10 * s, t, "unit").item() == pytest.approx(patch_loss(s, t, "unit").item(), rel=1e-5)


def test_a_step_is_the_formula() -> None:
    """Of the last two stages of the teacher, whose sides are 3 and 2; the student's side is 2."""
    method = make_method("patch_regression", mixup_alpha=0.0)
    again, batch = copy.deepcopy(method), make_batch(method)
    (view,) = batch.views
    _, (earlier, last) = method.teacher.backbone.with_last_maps(view, 2)
    assert (earlier.shape[2], last.shape[2]) == (3, 2)
    layer = again.projection.layers[0]
    s = np.einsum("bchw,dc->bdhw", again.student.map(view).detach().numpy(), layer.weight.detach().numpy())
    s += layer.bias.detach().numpy()[:, None, None]
    t = np.concatenate([upsampled(earlier.numpy(), 2), last.numpy()], 1)
    found = method(batch)
    assert found.total.item() == pytest.approx(((s - t) ** 2).mean(), rel=1e-4)
    assert layer.bias.abs().max() == 0  # at first


def test_one_map_and_deep_heads() -> None:
    method = make_method("patch_regression", teacher_maps=1, projection_layers=3)
    kinds = [type(layer) for layer in method.projection.layers]
    assert kinds == [nn.Linear, nn.LayerNorm, nn.GELU] * 2 + [nn.Linear]
    assert method.projection.layers[-1].out_features == method.teacher.backbone.map_channels


def test_more_maps_than_the_teacher_has_are_refused() -> None:
    facts = {"student": backbone_facts(STUDENT, 48), "teacher": backbone_facts(TEACHER, 48)}
    PatchRegression.check(PatchRegression.Config(teacher_maps=4), context(**facts))
    with pytest.raises(UserError, match=r"config\.teacher_maps: .*got 5\).*1 to 4"):
        PatchRegression.check(PatchRegression.Config(teacher_maps=5), context(**facts))


def test_a_student_whose_weights_behind_the_map_would_stay_untrained_is_refused() -> None:
    student = backbone_facts(ModelSpec(arch="mobilenetv3_small_050"), 64)
    with pytest.raises(UserError, match=r"student\.arch: .*conv_head.*global_local"):
        PatchRegression.check(PatchRegression.Config(), context(student=student))
    behind = build_backbone(ModelSpec(arch="mobilenetv3_small_050"), 0)
    with pytest.raises(UserError, match=r"student\.arch: .*conv_head"):
        PatchRegression(PatchRegression.Config(), behind, make_teacher(), context())


def test_a_network_without_a_map_is_refused() -> None:
    flat = backbone_facts(ModelSpec(arch="raykd/mlp_32", options={"side": 48}), 48)
    with pytest.raises(UserError, match=r"teacher\.arch: .*no map"):
        PatchRegression.check(PatchRegression.Config(), context(teacher=flat))
