"""RKD: distances and angles by hand, what it is blind to, and the step by formula."""

from __future__ import annotations

import copy
import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from loss_checks import Loss, check_gradient
from small_methods import TEACHER, context, make_batch, make_method, train_steps
from torch import Tensor

from trainables.core.errors import UserError
from trainables.methods.rkd import Rkd, angle_loss, distance_loss
from trainables.networks.backbones import build_backbone
from trainables.teachers.teacher import Teacher


def huber(x: float) -> float:
    return x * x / 2 if abs(x) < 1 else abs(x) - 0.5


def random(seed: int, *shapes: tuple[int, int]) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(shape, generator=generator).double() for shape in shapes]


def test_distances_by_hand() -> None:
    # Sides 3, 4, 5 over their mean of 4; three points on a line, 1, 1 and 2 apart, over 4/3.
    s = torch.tensor([[0.0, 0.0], [3.0, 0.0], [0.0, 4.0]])
    t = torch.tensor([[1.0], [0.0], [2.0]])
    pairs = [(3 / 4, 3 / 4), (4 / 4, 3 / 4), (5 / 4, 6 / 4)]  # 01, 02, 12
    expected = 2 * sum(huber(a - b) for a, b in pairs) / 9
    assert distance_loss(s, t).item() == pytest.approx(expected, rel=1e-6)


def test_far_distances_count_by_their_amount() -> None:
    """Three points together and one far away: the difference passes the bend of the Huber loss."""
    t = torch.tensor([[0.0], [0.1], [0.2], [40.0]])
    s = torch.tensor([[0.0], [40.0], [40.1], [40.2]])

    def scaled(x: Tensor) -> list[float]:
        d = [abs(a - b) for a in x.flatten().tolist() for b in x.flatten().tolist()]
        return [value / (sum(d) / 12) for value in d]

    pairs = list(zip(scaled(s), scaled(t), strict=True))
    assert max(abs(a - b) for a, b in pairs) > 1.5
    expected = sum(huber(a - b) for a, b in pairs) / 16
    assert distance_loss(s, t).item() == pytest.approx(expected, rel=1e-5)


def test_angles_by_hand() -> None:
    # A right angle at 0 with 3-4-5 sides, and an equilateral triangle.
    s = torch.tensor([[0.0, 0.0], [3.0, 0.0], [0.0, 4.0]])
    t = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.5, math.sqrt(0.75)]])
    # At each vertex both orders of its triplet; i = k is the same point twice, cosine 1 on both sides.
    expected = 2 * (huber(0 - 0.5) + huber(3 / 5 - 0.5) + huber(4 / 5 - 0.5)) / 27
    assert angle_loss(s, t).item() == pytest.approx(expected, rel=1e-5)


@given(st.integers(3, 8), st.integers(2, 6), st.floats(1e-2, 1e2), st.integers(0, 1000))
def test_turning_shifting_and_scaling_either_space_changes_nothing(
    size: int, dim: int, scale: float, seed: int
) -> None:
    s, t, turn, shift = random(seed, (size, dim), (size, 5), (dim, dim), (1, dim))
    moved = scale * s @ torch.linalg.qr(turn).Q + 10 * shift
    for loss in (distance_loss, angle_loss):
        torch.testing.assert_close(loss(moved, t), loss(s, t), rtol=1e-6, atol=1e-9)
        torch.testing.assert_close(loss(t, moved), loss(t, s), rtol=1e-6, atol=1e-9)
        assert loss(F.pad(moved, (0, 3)), s).item() == pytest.approx(0.0, abs=1e-12)
        assert loss(s, t) >= 0


@given(st.permutations(range(6)), st.integers(0, 1000))
def test_the_order_of_the_batch_changes_nothing(order: list[int], seed: int) -> None:
    s, t = random(seed, (6, 3), (6, 4))
    for loss in (distance_loss, angle_loss):
        torch.testing.assert_close(loss(s[order], t[order]), loss(s, t))


def test_points_that_coincide_count_as_nothing_and_send_finite_gradients() -> None:
    s, t = random(0, (4, 3), (4, 3))
    twice = s.repeat(2, 1).requires_grad_()
    for loss in (distance_loss, angle_loss):
        torch.testing.assert_close(loss(twice, t.repeat(2, 1)), loss(s, t))
    (distance_loss(twice, t.repeat(2, 1)) + angle_loss(twice, t.repeat(2, 1))).backward()
    assert twice.grad is not None and twice.grad.isfinite().all()
    collapsed = torch.zeros(4, 3, requires_grad=True)
    (distance_loss(collapsed, t) + angle_loss(collapsed, t)).backward()
    assert collapsed.grad is not None and collapsed.grad.isfinite().all()


@pytest.mark.parametrize("loss", [distance_loss, angle_loss])
def test_gradient_reaches_the_student_alone(loss: Loss) -> None:
    s, t = random(1, (5, 3), (5, 4))
    check_gradient(loss, [s], [t])


def test_a_step_is_the_formula() -> None:
    method = make_method("rkd", distance_weight=2.0, angle_weight=3.0, ce_weight=0.5)
    train_steps(method, 1)
    batch = make_batch(method, seed=5)
    again, teacher = copy.deepcopy(method), method.teacher
    losses = method(batch)
    features = again.student(batch.views[0])

    def relations(x: Tensor) -> tuple[Tensor, Tensor]:
        d = torch.stack([(x - row).norm(dim=1) for row in x])
        at = [F.normalize(x - row, dim=1) for row in x]
        return d / (d.sum() / 56), torch.stack([e @ e.T for e in at])  # 56 pairs of 8 that differ

    (d_s, a_s), (d_t, a_t) = relations(features), relations(teacher.backbone(batch.views[0]))
    distance, angle = F.huber_loss(d_s, d_t), F.huber_loss(a_s, a_t)
    known = F.cross_entropy(again.classifier(features), batch.labels)
    torch.testing.assert_close(losses.terms["distance"], distance, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(losses.terms["angle"], angle, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(losses.total, 2 * distance + 3 * angle + 0.5 * known, rtol=1e-4, atol=1e-6)


def test_the_teacher_matches_itself() -> None:
    teacher = Teacher(build_backbone(TEACHER, 0), None)
    method = Rkd(Rkd.Config(), build_backbone(TEACHER, 0), teacher, context()).eval()
    assert method(make_batch(method)).total.item() == pytest.approx(0.0, abs=1e-5)


def test_what_cannot_work_is_refused() -> None:
    with pytest.raises(UserError, match=r"config\.distance_weight: .*nothing is learnt"):
        Rkd.check(Rkd.Config(distance_weight=0, angle_weight=0, ce_weight=1), context())
