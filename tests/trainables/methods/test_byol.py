"""BYOL: its loss by hand, the rising momentum, and the step by formula."""

from __future__ import annotations

import copy
import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from small_methods import make_batch, make_method, train_steps
from torch import nn

from trainables.methods.byol import byol_loss, rising_momentum


def test_loss_by_hand() -> None:
    p1, p2 = torch.tensor([[3.0, 4.0], [0.0, 2.0]]), torch.tensor([[5.0, 0.0], [1.0, 1.0]])
    z1, z2 = torch.tensor([[0.0, 1.0], [2.0, 0.0]]), torch.tensor([[1.0, 0.0], [0.0, -3.0]])
    # cos(p1, z2) = .6, -1; cos(p2, z1) = 0, 1/sqrt(2); the mean over two images of the sum of 2 - 2 cos
    expected = ((2 - 1.2) + (2 + 2) + (2 - 0) + (2 - math.sqrt(2))) / 2
    assert byol_loss(p1, p2, z1, z2).item() == pytest.approx(expected, rel=1e-6)


@given(st.integers(0, 1000), st.floats(0.01, 100))
def test_loss_lies_between_0_and_8_whatever_the_lengths(seed: int, scale: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    p1, p2, z1, z2 = (torch.randn(5, 7, generator=generator) for _ in range(4))
    loss = byol_loss(p1, p2, z1, z2)
    assert 0 <= loss <= 8
    torch.testing.assert_close(byol_loss(scale * p1, p2, z1, scale * z2), loss)
    torch.testing.assert_close(byol_loss(p2, p1, z2, z1), loss)  # the views' order says nothing
    assert byol_loss(z2, z1, z1, z2).item() == pytest.approx(0, abs=1e-5)
    assert byol_loss(-z2, -z1, z1, z2).item() == pytest.approx(8, rel=1e-5)


def test_momentum_rises_from_its_base_to_one() -> None:
    assert [rising_momentum(0.9, progress) for progress in (0, 0.5, 1)] == pytest.approx([0.9, 0.95, 1])
    # cos(pi / 3) = 1/2
    assert rising_momentum(0.6, 1 / 3) == pytest.approx(1 - 0.4 * 0.75)


def test_a_step_is_the_formula() -> None:
    method = make_method("byol")
    train_steps(method, 1)  # so that student and momentum encoder differ
    batch = make_batch(method, seed=5)
    again = copy.deepcopy(method)
    losses = method(batch)
    p1, p2 = (again.predictor(again.head(again.student(view))) for view in batch.views)
    z1, z2 = (again.mean.parts["head"](again.mean.parts["student"](view)) for view in batch.views)
    cosines = [F.cosine_similarity(p1, z2), F.cosine_similarity(p2, z1)]
    torch.testing.assert_close(losses.total, sum((2 - 2 * cosine).mean() for cosine in cosines))
    assert torch.equal(losses.total, losses.terms["prediction"])

    student, mean = method.head[0].weight.clone(), method.mean.parts["head"][0].weight.clone()
    method.after_step(0.5)  # momentum .5 has risen to .75
    torch.testing.assert_close(method.mean.parts["head"][0].weight, 0.75 * mean + 0.25 * student)
    held = method.mean.parts["head"][0].weight.clone()
    method.after_step(1.0)
    assert torch.equal(method.mean.parts["head"][0].weight, held)


def test_no_gradient_reaches_the_momentum_encoder_and_it_predicts_nothing() -> None:
    method = make_method("byol")
    method(make_batch(method)).total.backward()
    assert all(p.grad is None for p in method.mean.parameters())
    assert set(method.mean.parts) == {"student", "head"}  # the predictor is the student's alone


def test_projector_and_predictor_are_the_papers() -> None:
    method = make_method("byol", hidden=40, head_dim=12)
    for head, first in ((method.head, method.student.feature_dim), (method.predictor, 12)):
        assert [type(layer) for layer in head] == [nn.Linear, nn.BatchNorm1d, nn.ReLU, nn.Linear]
        assert head[0].weight.shape == (40, first) and head[3].weight.shape == (12, 40)
