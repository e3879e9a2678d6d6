"""CompRess: its loss by hand, both variants' steps by formula, and which queue holds what."""

from __future__ import annotations

import copy
import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from loss_checks import check_gradient, check_half_precision
from small_methods import TEACHER, adam_steps, context, make_batch, make_method, train_steps

from trainables.core.numerics import unit
from trainables.methods.compress import Compress, similarity_kl
from trainables.methods.parts.queue import Queue
from trainables.networks.backbones import build_backbone
from trainables.teachers.teacher import Teacher


def test_loss_by_hand() -> None:
    s, t = torch.tensor([[0.6, 0.8]]), torch.tensor([[1.0, 0.0, 0.0]])
    student_queue = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    teacher_queue = torch.tensor([[0.8, 0.6, 0.0], [0.0, 0.0, 1.0]])
    # s.Q_s = .6, .8 and t.Q_t = .8, 0, over .4
    p_s = 1 / (1 + math.exp((0.8 - 0.6) / 0.4))
    p_t = 1 / (1 + math.exp((0.0 - 0.8) / 0.4))
    expected = p_t * math.log(p_t / p_s) + (1 - p_t) * math.log((1 - p_t) / (1 - p_s))
    found = similarity_kl(s, t, student_queue, teacher_queue, 0.4)
    assert found.item() == pytest.approx(expected, rel=1e-5)
    # Beside a sample that matches its teacher exactly (similarities 0, 0 on both sides): half as much.
    nowhere_s, nowhere_t = torch.zeros(1, 2), torch.zeros(1, 3)
    halved = similarity_kl(
        torch.cat([s, nowhere_s]), torch.cat([t, nowhere_t]), student_queue, teacher_queue, 0.4
    )
    assert halved.item() == pytest.approx(expected / 2, rel=1e-5)


@given(st.integers(1, 40), st.integers(2, 12), st.floats(0.02, 5), st.integers(0, 1000))
def test_zero_at_a_perfect_match_and_never_below(size: int, dim: int, temperature: float, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    t, other, queue = (unit(torch.randn(n, dim, generator=generator)) for n in (5, 5, size))
    assert similarity_kl(t, t, queue, queue, temperature).item() == 0.0
    assert similarity_kl(other, t, queue, queue, temperature).item() >= -1e-6
    # Similarities are all it sees: a student whose space is the teacher's, turned and padded, matches, too.
    turn = torch.linalg.qr(torch.randn(dim, dim, generator=generator)).Q
    turned, turned_queue = (F.pad(x @ turn, (0, 3)) for x in (t, queue))
    found = similarity_kl(turned, t, turned_queue, queue, temperature)
    assert found.item() == pytest.approx(0.0, abs=1e-4)


def test_gradient_reaches_the_student_alone() -> None:
    s, t, queue_s, queue_t = (torch.randn(n, 3) for n in (4, 4, 6, 6))
    check_gradient(lambda *x: similarity_kl(*x, 0.5), [s], [t, queue_s, queue_t])


def test_half_precision_around_it_changes_no_bit() -> None:
    s, t, queue = (unit(torch.randn(8, 16)) for _ in range(3))
    check_half_precision(lambda *x: similarity_kl(*x, 0.04), s, t, queue, queue)


def test_a_step_with_two_queues() -> None:
    method = make_method("compress", temperature=0.2)
    train_steps(method, 1)  # so that student and momentum encoder differ
    (view,) = make_batch(method, seed=5).views
    again, teacher = copy.deepcopy(method), method.teacher
    assert method.student.feature_dim != teacher.feature_dim
    losses = method(make_batch(method, seed=5))
    s, t = F.normalize(again.student(view), dim=1), F.normalize(teacher.backbone(view), dim=1)
    p_s = F.softmax(s @ again.student_queue.rows.T / 0.2, 1)
    p_t = F.softmax(t @ again.teacher_queue.rows.T / 0.2, 1)
    torch.testing.assert_close(losses.total, (p_t * (p_t / p_s).log()).sum() / 8)
    assert torch.equal(losses.total, losses.terms["distillation"])

    mean = F.normalize(again.mean.parts["student"](view), dim=1)
    assert not torch.allclose(mean, s)
    weight = next(method.student.parameters()).clone()
    followed = next(method.mean.parameters()).clone()
    method.after_step(0.5)
    # The same images in the same rows; the student's queue is filled by the momentum encoder.
    torch.testing.assert_close(method.student_queue.rows[8:16], mean)
    torch.testing.assert_close(method.teacher_queue.rows[8:16], t)
    torch.testing.assert_close(next(method.mean.parameters()), (weight + followed) / 2)  # momentum .5


def test_a_step_with_one_queue() -> None:
    method = make_method("compress", variant="1q", temperature=0.2)
    train_steps(method, 1)
    assert len([m for m in method.modules() if isinstance(m, Queue)]) == 1
    assert not any(name.startswith("mean") for name in method.state_dict())
    (view,) = make_batch(method, seed=5).views
    again, teacher = copy.deepcopy(method), method.teacher
    losses = method(make_batch(method, seed=5))
    s = F.normalize(again.adapter(again.student(view)), dim=1)
    t = F.normalize(teacher.backbone(view), dim=1)
    p_s, p_t = (F.softmax(x @ again.teacher_queue.rows.T / 0.2, 1) for x in (s, t))
    torch.testing.assert_close(losses.total, (p_t * (p_t / p_s).log()).sum() / 8)
    method.after_step(0.5)
    torch.testing.assert_close(method.teacher_queue.rows[8:16], t)


def test_one_queue_is_matched_perfectly_by_the_teacher_itself() -> None:
    teacher = Teacher(build_backbone(TEACHER, 0), None)
    student = build_backbone(TEACHER, 0)
    method = Compress(Compress.Config(variant="1q", queue_size=16), student, teacher, context()).eval()
    with torch.no_grad():
        method.adapter.weight.copy_(torch.eye(teacher.feature_dim))
        method.adapter.bias.zero_()
        assert method(make_batch(method)).total.item() == pytest.approx(0.0, abs=1e-5)


@pytest.mark.parametrize("variant", ["2q", "1q"])
def test_loss_falls(variant: str) -> None:
    method = make_method("compress", variant=variant)
    train_steps(method, 2, lr=1e-4)  # queues of features instead of random directions
    first, *_, last = adam_steps(method)
    assert last["total"] < first["total"] / 2
