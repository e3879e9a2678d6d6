"""FitNets: its loss by hand, which stages a setting compares, and a step of it."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from loss_checks import check_gradient
from small_methods import STUDENT, TEACHER, context, make_batch, make_method, make_teacher
from torch import nn

from trainables.core.errors import UserError
from trainables.methods.fitnets import FitNets, hint_loss
from trainables.networks.backbones import backbone_facts, build_backbone
from trainables.spec.trial import ModelSpec


def test_loss_by_hand() -> None:
    s, t = torch.tensor([1.0, 2.0, 3.0, 4.0]).view(2, 1, 1, 2), torch.tensor([1.0, 0.0, 3.0, 7.0])
    assert hint_loss(s, t.view(2, 1, 1, 2)).item() == pytest.approx((4 + 9) / 4)
    assert hint_loss(s, s).item() == 0.0
    (gradient,) = check_gradient(hint_loss, [s], [t.view(2, 1, 1, 2)])
    assert gradient.flatten().tolist() == [0.0, 2 * 2 / 4, 0.0, 2 * -3 / 4]


@pytest.mark.parametrize("relu", [False, True])
@pytest.mark.parametrize(("stage", "side"), [(1, 2), (2, 3), (4, 12)])
def test_a_step_is_the_formula(stage: int, side: int, relu: bool) -> None:
    method = make_method("fitnets", stage=stage, relu=relu, weight=7.0, ce_weight=0.5)
    batch = make_batch(method)
    again = copy.deepcopy(method)
    features, student = again.student.with_maps(batch.views[0])
    _, teacher = method.teacher.backbone.with_maps(batch.views[0])
    s, t = student[-stage], teacher[-stage]
    assert s.shape[2:] == t.shape[2:] == (side, side)
    convolution, norm = again.regressor[:2]
    given = torch.einsum("bchw,ec->behw", s, convolution.weight[:, :, 0, 0])
    mean, variance = given.mean((0, 2, 3), keepdim=True), given.var((0, 2, 3), correction=0, keepdim=True)
    given = (given - mean) / (variance + norm.eps).sqrt()  # its weight and bias are 1 and 0 at first
    given = given.clamp(min=0) if relu else given
    hint = (given - t).square().mean()
    labels = F.cross_entropy(again.classifier(features), batch.labels)
    losses = method(batch)
    torch.testing.assert_close(losses.terms["hint"], hint, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(losses.total, 7 * hint + 0.5 * labels, rtol=1e-4, atol=1e-5)


def test_maps_meet_at_the_smaller_side() -> None:
    # A student that shrinks less: at 48 px its last map has 3 positions a side, the teacher's 2.
    spec = ModelSpec(arch="test_efficientnet", options={"channel_multiplier": 0.25, "output_stride": 16})
    method = FitNets(FitNets.Config(stage=1), build_backbone(spec, 0), make_teacher(), context())
    pixels = make_batch(method).views[0]
    student = method.student.with_maps(pixels)[1][-1]
    teacher = method.teacher.features_and_maps(pixels)[1][-1]
    assert (student.shape[2], teacher.shape[2]) == (3, 2)
    given = method.regressor(F.adaptive_avg_pool2d(student, 2))
    torch.testing.assert_close(method(make_batch(method)).terms["hint"], (given - teacher).square().mean())


def test_a_perfect_match_is_zero() -> None:
    method = make_method("fitnets", stage=1).eval()
    teacher = method.teacher.features_and_maps(make_batch(method).views[0])[1][-1]
    width = teacher.shape[1]
    identity = nn.Sequential(nn.Conv2d(width, width, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU()).eval()
    nn.init.dirac_(identity[0].weight)
    found = hint_loss(identity(teacher), teacher).item()  # behind a ReLU itself: another changes nothing
    assert found == pytest.approx(0.0, abs=1e-8)


def test_stage_counts_from_the_deepest_and_must_be_there() -> None:
    facts = {"student": backbone_facts(STUDENT, 48), "teacher": backbone_facts(TEACHER, 48)}
    (pair,) = FitNets.choose(FitNets.Config(), facts["student"].stages, facts["teacher"].stages[1:], 48)
    assert (pair.student, pair.teacher) == (2, 1)
    FitNets.check(FitNets.Config(stage=4), context(**facts))
    with pytest.raises(UserError, match=r"config\.stage: .*4 stages.*got 5\).*1 to 4"):
        FitNets.check(FitNets.Config(stage=5), context(**facts))


def test_the_regressor_ends_in_a_relu_or_a_norm() -> None:
    assert isinstance(make_method("fitnets").regressor[-1], nn.ReLU)
    assert isinstance(make_method("fitnets", relu=False).regressor[-1], nn.BatchNorm2d)
