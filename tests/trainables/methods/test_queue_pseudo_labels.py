"""Queue pseudo-labels: a step by numpy, what is in the queue when, and a perfect match."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from by_numpy import softmax, units
from loss_checks import check_gradient
from small_methods import TEACHER, context, make_batch, make_method, train_steps

from trainables.core.numerics import unit
from trainables.methods.compress import similarity_kl
from trainables.methods.parts.queue import Queue
from trainables.methods.queue_pseudo_labels import QueuePseudoLabels, pseudo_classes
from trainables.networks.backbones import build_backbone
from trainables.teachers.teacher import Teacher


def test_loss_by_hand() -> None:
    """Three pseudo-classes, of which one is not filled: similarities .6, .8, 0 and 1, 0, 0 at T = .5."""
    s, t = torch.tensor([[0.6, 0.8]]), torch.tensor([[1.0, 0.0]])
    rows = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.0, 0.0]])
    p_s, p_t = (softmax(np.array(logits) / 0.5) for logits in ([0.6, 0.8, 0.0], [1.0, 0.0, 0.0]))
    found = similarity_kl(s, t, rows, rows, 0.5).item()
    assert found == pytest.approx((p_t * np.log(p_t / p_s)).sum(), rel=1e-5)
    check_gradient(lambda *x: similarity_kl(*x, 0.5), [s], [t, rows, rows])


@pytest.mark.parametrize("include", [True, False])
def test_a_step_is_the_formula(include: bool) -> None:
    method = make_method("queue_pseudo_labels", temperature=0.1, include_batch=include, mixup_alpha=0.0)
    train_steps(method, 1)
    again, batch = copy.deepcopy(method), make_batch(method, seed=5)
    (view,) = batch.views
    losses = method(batch)
    t = units(again.teacher.backbone(view))
    weight, bias = again.projection.layers[0].weight, again.projection.layers[0].bias
    s = units(again.student(view) @ weight.T + bias)
    rows = again.queue.rows.double().numpy()
    first = units(again.teacher.backbone(make_batch(method, seed=0).views[0]))
    np.testing.assert_allclose(rows, np.concatenate([first, np.zeros_like(first)]), atol=1e-6)
    if include:  # in the places of the oldest: the second half, which is empty
        rows = np.concatenate([rows[:8], t])
    p_t, p_s = (softmax(x @ rows.T / 0.1) for x in (t, s))
    want = (p_t * np.log(p_t / p_s)).sum() / 8
    assert losses.total.item() == pytest.approx(want, rel=1e-4)
    assert torch.equal(losses.total, losses.terms["distillation"])
    method.after_step(0.5)
    np.testing.assert_allclose(method.queue.rows[8:], t, atol=1e-6)


def test_rows_that_joined_are_those_that_will_be_there() -> None:
    queue = Queue(4, 2)
    for keys in (torch.ones(2, 2), 2 * torch.ones(2, 2), 3 * torch.ones(3, 2)):
        before = queue.rows.clone()
        ahead = queue.joined(keys)
        assert torch.equal(queue.rows, before)
        queue.hold(keys)
        queue.advance()
        assert torch.equal(queue.rows, ahead)
    assert not queue.joined(torch.ones(2, 2, requires_grad=True)).requires_grad
    assert torch.equal(
        queue.joined(torch.arange(12.0).view(6, 2)), queue.joined(torch.arange(4.0, 12).view(4, 2))
    )


def test_classes_without_the_batch_are_past_features_alone() -> None:
    queue = Queue(4, 3)
    t = unit(torch.randn(2, 3))
    assert pseudo_classes(queue, t, include_batch=False) is queue.rows
    assert torch.equal(pseudo_classes(queue, t, include_batch=True)[:2], t)


def test_the_teacher_itself_matches_perfectly() -> None:
    teacher = Teacher(build_backbone(TEACHER, 0), None)
    student = build_backbone(TEACHER, 0)
    method = QueuePseudoLabels(QueuePseudoLabels.Config(queue_size=16), student, teacher, context()).eval()
    with torch.no_grad():
        method.projection.layers[0].weight.copy_(torch.eye(teacher.feature_dim))
        method.projection.layers[0].bias.zero_()
        assert method(make_batch(method)).total.item() == pytest.approx(0.0, abs=1e-5)


def test_the_projection_starts_as_published() -> None:
    layer = make_method("queue_pseudo_labels").projection.layers[0]
    assert layer.weight.std().item() == pytest.approx(0.02, rel=0.15) and layer.bias.abs().max() > 0
