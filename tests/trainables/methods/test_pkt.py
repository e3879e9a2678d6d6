"""PKT: its divergence by hand, what it is blind to, and the step by formula."""

from __future__ import annotations

import copy
import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from loss_checks import check_gradient, check_half_precision
from small_methods import TEACHER, context, make_batch, make_method, train_steps
from torch import Tensor

from trainables.methods.pkt import Pkt, neighbour_kl
from trainables.networks.backbones import build_backbone
from trainables.teachers.teacher import Teacher


def random(seed: int, *shapes: tuple[int, int]) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(shape, generator=generator).double() for shape in shapes]


def test_loss_by_hand() -> None:
    # Two images: cosine .6 between the student's, -.5 between the teacher's; kernels .8 and .25 beside 1.
    s = torch.tensor([[2.0, 0.0], [0.6, 0.8]])
    t = torch.tensor([[1.0, 0.0], [-1.0, math.sqrt(3.0)]])
    own_s, own_t = 1 / 1.8, 1 / 1.25
    expected = own_t * math.log(own_t / own_s) + (1 - own_t) * math.log((1 - own_t) / (1 - own_s))
    assert neighbour_kl(s, t).item() == pytest.approx(expected, rel=1e-5)
    # A third image at right angles to both, on both sides: kernel 1/2 to each.
    third_s = torch.tensor([[2.0, 0.0, 0.0], [0.6, 0.8, 0.0], [0.0, 0.0, 3.0]])
    third_t = torch.tensor([[1.0, 0.0, 0.0], [-1.0, math.sqrt(3.0), 0.0], [0.0, 0.0, 1.0]])
    p_s, p_t = [x / 2.3 for x in (1, 0.8, 0.5)], [x / 1.75 for x in (1, 0.25, 0.5)]
    row = sum(a * math.log(a / b) for a, b in zip(p_t, p_s, strict=True))
    assert neighbour_kl(third_s, third_t).item() == pytest.approx(2 * row / 3, rel=1e-5)


@given(st.integers(2, 10), st.integers(2, 6), st.floats(1e-3, 1e3), st.integers(0, 1000))
def test_turning_and_scaling_either_space_changes_nothing(
    size: int, dim: int, scale: float, seed: int
) -> None:
    s, t, turn, lengths = random(seed, (size, dim), (size, 5), (dim, dim), (size, 1))
    moved = F.pad(scale * lengths.exp() * (s @ torch.linalg.qr(turn).Q), (0, 2))
    torch.testing.assert_close(neighbour_kl(moved, t), neighbour_kl(s, t), rtol=1e-6, atol=1e-9)
    torch.testing.assert_close(neighbour_kl(t, moved), neighbour_kl(t, s), rtol=1e-6, atol=1e-9)
    assert neighbour_kl(moved, s).item() == pytest.approx(0.0, abs=1e-12)
    assert neighbour_kl(s, t) >= -1e-6  # eps leaves it a hair below 0 at worst


@given(st.permutations(range(6)), st.integers(0, 1000))
def test_the_order_of_the_batch_changes_nothing(order: list[int], seed: int) -> None:
    s, t = random(seed, (6, 3), (6, 4))
    torch.testing.assert_close(neighbour_kl(s[order], t[order]), neighbour_kl(s, t))


def test_opposite_features_are_finite_on_either_side() -> None:
    opposite = torch.tensor([[1.0, 2.0], [-1.0, -2.0]], requires_grad=True)
    near = torch.tensor([[1.0, 2.0], [1.0, 1.0]], requires_grad=True)
    for s, t in ((opposite, near), (near, opposite)):
        loss = neighbour_kl(s, t)
        (gradient,) = torch.autograd.grad(loss, s)
        assert loss.isfinite() and loss > 0.1 and gradient.isfinite().all()


def test_gradient_reaches_the_student_alone() -> None:
    s, t = random(1, (5, 3), (5, 4))
    check_gradient(neighbour_kl, [s], [t])


def test_half_precision_around_it_changes_no_bit() -> None:
    check_half_precision(neighbour_kl, torch.randn(8, 16), torch.randn(8, 24))


def test_a_step_is_the_formula() -> None:
    method = make_method("pkt", weight=30.0, ce_weight=0.5)
    train_steps(method, 1, lr=1e-3)
    batch = make_batch(method, seed=5)
    again, teacher = copy.deepcopy(method), method.teacher
    losses = method(batch)
    features = again.student(batch.views[0])

    def rows(x: Tensor) -> Tensor:
        kernel = F.cosine_similarity(x[:, None], x[None], dim=2) + 1
        return kernel / kernel.sum(1, keepdim=True)

    p_s, p_t = rows(features), rows(teacher.backbone(batch.views[0]))
    divergence = F.kl_div(p_s.log(), p_t, reduction="batchmean")
    known = F.cross_entropy(again.classifier(features), batch.labels)
    torch.testing.assert_close(losses.terms["distillation"], divergence, rtol=1e-3, atol=1e-6)
    torch.testing.assert_close(losses.total, 30 * divergence + 0.5 * known, rtol=1e-3, atol=1e-5)


def test_the_teacher_matches_itself() -> None:
    teacher = Teacher(build_backbone(TEACHER, 0), None)
    method = Pkt(Pkt.Config(), build_backbone(TEACHER, 0), teacher, context()).eval()
    assert method(make_batch(method)).total.item() == pytest.approx(0.0, abs=1e-4)
