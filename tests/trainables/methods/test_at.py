"""AT: its loss by hand, what it is blind to, and which stages a run compares."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from loss_checks import check_gradient
from small_methods import STUDENT, TEACHER, context, make_batch, make_method

from trainables.core.errors import UserError
from trainables.methods.at import At, attention, attention_loss
from trainables.networks.backbones import backbone_facts

seeds = st.integers(0, 1000)


def maps(seed: int, channels: int = 3, side: int = 4) -> torch.Tensor:
    return torch.randn(5, channels, side, side, generator=torch.Generator().manual_seed(seed))


def test_loss_by_hand() -> None:
    s = torch.tensor([[[[1.0, 0.0], [0.0, 0.0]], [[1.0, 2.0], [0.0, 0.0]]]])  # squares sum to 2, 4, 0, 0
    t = torch.tensor([[[[0.0, 3.0], [0.0, -3.0]]]])  # 0, 9, 0, 9
    a_s, a_t = (2 / 20**0.5, 4 / 20**0.5, 0.0, 0.0), (0.0, 0.5**0.5, 0.0, 0.5**0.5)
    torch.testing.assert_close(attention(s), torch.tensor([a_s]))
    expected = sum((x - y) ** 2 for x, y in zip(a_s, a_t, strict=True)) / 4
    assert attention_loss(s, t).item() == pytest.approx(expected, rel=1e-5)
    # Beside a sample that agrees: half as much.
    both = attention_loss(torch.cat([s, s]), torch.cat([t, s[:, :1] * 0 + s.square().sum(1).sqrt()]))
    assert both.item() == pytest.approx(expected / 2, rel=1e-5)
    # All of the energy elsewhere: the most there is, 2 over the number of positions.
    assert attention_loss(s[:, :1], t).item() == pytest.approx(2 / 4)


@given(seeds, st.floats(0.01, 100))
def test_zero_at_a_perfect_match_and_blind_to_scale_and_channels(seed: int, scale: float) -> None:
    t = maps(seed)
    assert attention_loss(t, t).item() == 0.0
    shuffled = torch.cat([t.flip(1), -t], 1) * scale  # other order, twice, other sign
    assert attention_loss(shuffled, t).item() == pytest.approx(0.0, abs=1e-12)
    s = maps(seed + 1, 7)
    torch.testing.assert_close(attention_loss(scale * s, t), attention_loss(s, t / scale))
    assert attention_loss(s, t).item() > 1e-4


@given(seeds)
def test_order_of_the_batch_does_not_matter(seed: int) -> None:
    s, t = maps(seed), maps(seed + 1, 6, side=2)
    order = torch.randperm(5, generator=torch.Generator().manual_seed(seed))
    torch.testing.assert_close(attention_loss(s[order], t[order]), attention_loss(s, t))


def test_gradient_reaches_the_student_alone() -> None:
    check_gradient(attention_loss, [maps(0)], [maps(1)])
    nowhere = torch.zeros(2, 3, 4, 4, requires_grad=True)
    attention_loss(nowhere, maps(1)[:2]).backward()
    assert torch.isfinite(nowhere.grad).all()


def test_a_step_is_the_formula() -> None:
    method = make_method("at", weight=20.0, ce_weight=0.5)
    batch = make_batch(method)
    again = copy.deepcopy(method)
    features, student = again.student.with_maps(batch.views[0])
    _, teacher = method.teacher.backbone.with_maps(batch.views[0])
    stages = []
    for s, t in zip(student, teacher, strict=True):
        a_s, a_t = (x.square().sum(1).flatten(1) for x in (s, t))
        gap = a_s / a_s.norm(dim=1, keepdim=True) - a_t / a_t.norm(dim=1, keepdim=True)
        stages.append(gap.square().mean())
    labels = F.cross_entropy(again.classifier(features), batch.labels)
    losses = method(batch)
    assert list(losses.terms) == ["stage_1", "stage_2", "stage_3", "stage_4", "cross_entropy"]
    for number, stage in enumerate(stages, 1):
        torch.testing.assert_close(losses.terms[f"stage_{number}"], stage)
    torch.testing.assert_close(losses.total, 20 * sum(stages) + 0.5 * labels)


def test_stages_of_one_position_are_left_out_and_nothing_else_refused() -> None:
    # 16 px: maps of 4, 2, 1 and 1 a side, on both sides.
    method = make_method("at", context(image_size=16))
    batch = make_batch(method)
    batch = batch._replace(views=[F.interpolate(batch.views[0], 16)])
    losses = method(batch)
    assert [name for name in losses.terms if name != "cross_entropy"] == ["stage_1", "stage_2"]
    losses.total.backward()
    assert all((p.grad is not None) == p.requires_grad for p in method.parameters())

    student, teacher = backbone_facts(STUDENT, 16), backbone_facts(TEACHER, 16)
    At.check(At.Config(), context(image_size=16, student=student, teacher=teacher))
    flat = type(student)(24, 24, 1, True, (), (), ((24, 1), (24, 1)))
    with pytest.raises(UserError, match=r"data\.image_size: .*1x1"):
        At.check(At.Config(), context(image_size=16, student=student, teacher=flat))
