"""MoCo-v2: the contrastive loss by formula, the wiring, and what is refused."""

from __future__ import annotations

import copy
import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from loss_checks import check_gradient, check_half_precision
from small_methods import make_batch, make_method, train_steps
from torch import nn

from trainables.methods.parts.losses import info_nce


def test_info_nce_by_hand() -> None:
    q = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    k = torch.tensor([[0.6, 0.8], [0.0, 1.0]])
    queue = torch.tensor([[0.28, 0.96], [-0.8, 0.6]])
    first = -1.2 + math.log(math.exp(1.2) + math.exp(0.56) + math.exp(-1.6))
    second = -2.0 + math.log(math.exp(2.0) + math.exp(1.92) + math.exp(1.2))
    assert info_nce(q, k, queue, 0.5).item() == pytest.approx((first + second) / 2, rel=1e-6)


@given(st.integers(1, 40), st.integers(1, 6), st.floats(0.01, 10))
def test_info_nce_of_what_is_all_alike_is_the_log_of_the_choices(
    size: int, batch: int, temperature: float
) -> None:
    q = F.normalize(torch.ones(batch, 3), dim=1)
    assert info_nce(q, q, q[:1].expand(size, 3), temperature).item() == pytest.approx(
        math.log(size + 1), rel=1e-4
    )


def test_info_nce_vanishes_where_only_the_positive_is_near() -> None:
    q = torch.tensor([[1.0, 0.0]])
    assert info_nce(q, q, -q, 0.01).item() == 0.0
    assert info_nce(q, -q, q, 0.01).item() == pytest.approx(200.0)


def test_info_nce_sends_gradient_to_the_query_alone() -> None:
    q, k, queue = torch.randn(3, 4, 3)
    check_gradient(lambda q, k, queue: info_nce(q, k, queue, 0.2), [q], [k, queue])


def test_info_nce_is_float32_under_autocast() -> None:
    q, k, queue = F.normalize(torch.randn(3, 8, 16), dim=2)
    check_half_precision(lambda q, k, queue: info_nce(q, k, queue, 1e-4), q, k, queue)


def test_a_step_is_the_formula() -> None:
    method = make_method("moco", temperature=0.3)
    train_steps(method, 1)  # so that student and momentum encoder differ
    batch = make_batch(method, seed=5)
    again = copy.deepcopy(method)
    losses = method(batch)
    q = F.normalize(again.head(again.student(batch.views[0])), dim=1)
    k = F.normalize(again.mean.parts["head"](again.mean.parts["student"](batch.views[1])), dim=1)
    rows = again.queue.rows
    logits = torch.cat([(q * k).sum(1, keepdim=True), q @ rows.T], 1) / 0.3
    expected = (logits.logsumexp(1) - logits[:, 0]).mean()
    torch.testing.assert_close(losses.total, expected)
    assert torch.equal(losses.total, losses.terms["contrastive"])

    weight, mean = method.head[0].weight.clone(), method.mean.parts["head"][0].weight.clone()
    method.after_step(0.5)
    assert torch.equal(method.queue.rows[8:16], k.detach())  # after the 8 of the first step
    torch.testing.assert_close(method.mean.parts["head"][0].weight, (weight + mean) / 2)  # momentum .5


def test_head_widths() -> None:
    head = make_method("moco", head_ratio=2.0).head
    assert [(m.in_features, m.out_features) for m in head if isinstance(m, nn.Linear)] == [
        (64, 128),
        (128, 12),
    ]
    assert not any(isinstance(m, nn.modules.batchnorm._BatchNorm) for m in head.modules())
