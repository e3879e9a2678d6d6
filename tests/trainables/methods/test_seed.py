"""SEED: its loss by hand, its limits in the teacher's temperature, and the step by formula."""

from __future__ import annotations

import copy
import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from loss_checks import check_gradient, check_half_precision
from small_methods import make_batch, make_method, make_teacher, train_steps
from torch import nn

from trainables.core.numerics import unit
from trainables.methods.parts.losses import info_nce
from trainables.methods.parts.momentum_encoder import MomentumEncoder
from trainables.methods.seed import seed_loss
from trainables.training.flat_names import find_field
from trainables.training.resolve import resolve


def test_loss_by_hand() -> None:
    s, t = torch.tensor([[0.6, 0.8]]), torch.tensor([[1.0, 0.0]])
    queue = torch.tensor([[0.8, 0.6], [0.0, 1.0]])
    # [s.t, s.Q] = .6, .96, .8 over .2; [t.t, t.Q] = 1, .8, 0 over .4
    student, teacher = [3.0, 4.8, 4.0], [2.5, 2.0, 0.0]
    log_sum = math.log(sum(map(math.exp, student)))
    weights = [math.exp(x) / sum(map(math.exp, teacher)) for x in teacher]
    expected = -sum(w * (x - log_sum) for w, x in zip(weights, student, strict=True))
    assert seed_loss(s, t, queue, 0.2, 0.4).item() == pytest.approx(expected, rel=1e-6)
    # A second sample that is its own teacher and meets the same queue: the mean of both.
    own = torch.tensor([[0.0, 1.0]])
    student = [5.0, 3.0, 5.0]
    teacher = [2.5, 1.5, 2.5]
    log_sum = math.log(sum(map(math.exp, student)))
    weights = [math.exp(x) / sum(map(math.exp, teacher)) for x in teacher]
    second = -sum(w * (x - log_sum) for w, x in zip(weights, student, strict=True))
    both = seed_loss(torch.cat([s, own]), torch.cat([t, own]), queue, 0.2, 0.4)
    assert both.item() == pytest.approx((expected + second) / 2, rel=1e-6)


@given(st.integers(1, 30), st.integers(1, 6), st.floats(0.02, 5), st.integers(0, 1000))
def test_a_cold_teacher_makes_it_info_nce_on_the_teachers_keys(
    size: int, batch: int, temperature: float, seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    s, t, queue = (unit(torch.randn(n, 16, generator=generator)) for n in (batch, batch, size))
    torch.testing.assert_close(
        seed_loss(s, t, queue, temperature, 1e-4), info_nce(s, t, queue, temperature), rtol=1e-4, atol=1e-4
    )


@given(st.integers(1, 30), st.floats(0.02, 5), st.integers(0, 1000))
def test_its_minimum_is_the_targets_entropy_at_a_perfect_match(size: int, warmth: float, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    t, queue = (unit(torch.randn(n, 16, generator=generator)) for n in (4, size))
    target = F.softmax(torch.cat([torch.ones(4, 1), t @ queue.T], 1) / warmth, 1)
    entropy = -(target * target.clamp_min(1e-38).log()).sum(1).mean()
    torch.testing.assert_close(seed_loss(t, t, queue, warmth, warmth), entropy, rtol=1e-4, atol=1e-5)
    other = unit(torch.randn(4, 16, generator=generator))
    assert seed_loss(other, t, queue, warmth, warmth) >= entropy - 1e-5


def test_a_student_that_finds_all_alike_pays_the_log_of_the_choices() -> None:
    s = torch.tensor([[0.0, 0.0, 1.0]]).expand(5, 3)
    flat = F.pad(unit(torch.randn(25, 2)), (0, 1))
    assert seed_loss(s, flat[:5], flat[5:], 0.2, 1e-4).item() == pytest.approx(math.log(21), rel=1e-5)


def test_an_image_the_queue_still_holds_shares_the_target() -> None:
    """Two equal candidates halve the cold target; the student's own two logits are equal, too."""
    t, far = torch.tensor([[1.0, 0.0]]), torch.tensor([[-1.0, 0.0]])
    loss = seed_loss(t, t, torch.cat([t, far]), 0.2, 1e-4)
    assert loss.item() == pytest.approx(math.log(2 + math.exp(-10)), rel=1e-5)


def test_gradient_reaches_the_student_alone() -> None:
    s, t, queue = torch.randn(3, 4, 3)
    check_gradient(lambda s, t, queue: seed_loss(s, t, queue, 0.2, 0.1), [s], [t, queue])


def test_half_precision_around_it_changes_no_bit() -> None:
    s, t, queue = (unit(torch.randn(8, 16)) for _ in range(3))
    queue[:4] = unit(t[:4] + 0.01 * torch.randn(4, 16))  # neighbours that a rounding would mistake
    check_half_precision(lambda s, t, queue: seed_loss(s, t, queue, 0.2, 1e-4), s, t, queue)


def test_a_step_is_the_formula() -> None:
    method = make_method("seed", temperature=0.3, teacher_temperature=0.5)
    train_steps(method, 1)
    assert method.views == 1 and not any(isinstance(m, MomentumEncoder) for m in method.modules())
    batch = make_batch(method, seed=5)
    again, teacher, rows = copy.deepcopy(method), method.teacher, method.queue.rows.clone()
    s = F.normalize(again.head(again.student(batch.views[0])), dim=1)
    t = F.normalize(teacher.head(teacher.backbone(batch.views[0])), dim=1)
    p_s = F.softmax(torch.cat([(s * t).sum(1, keepdim=True), s @ rows.T], 1) / 0.3, 1)
    p_t = F.softmax(torch.cat([(t * t).sum(1, keepdim=True), t @ rows.T], 1) / 0.5, 1)
    losses = method(batch)
    torch.testing.assert_close(losses.total, -(p_t * p_s.log()).sum() / 8)
    assert torch.equal(losses.total, losses.terms["distillation"])
    method.after_step(0.5)
    assert method.queue.rows.dtype == torch.float32
    torch.testing.assert_close(method.queue.rows[8:16], t)  # the teacher's, after the 8 of the first step


def test_head_is_as_wide_as_the_student_and_ends_where_the_teachers_does() -> None:
    head = make_method("seed", teacher=make_teacher(head_dim=20)).head
    shapes = [(m.in_features, m.out_features) for m in head if isinstance(m, nn.Linear)]
    assert shapes == [(64, 64), (64, 20)]


def test_the_method_and_a_trials_seed_are_told_apart() -> None:
    raw = {
        "method": "seed",
        "student": {"arch": "test_resnet"},
        "teacher": {"arch": "test_resnet", "train": {"method": "moco", "epochs": 1}},
        "epochs": 1,
        "seed": 7,
    }
    trial = resolve(raw)
    assert (trial.method, trial.seed) == ("seed", 7)
    assert find_field("seed", ["seed"], "axes").path == ("seed",)
    assert find_field("seed.temperature", ["seed", "moco"], "axes").methods == frozenset({"seed"})
