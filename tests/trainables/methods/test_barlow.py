"""Barlow Twins: its terms by hand, what they do not see, and the step by formula."""

from __future__ import annotations

import copy

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from loss_checks import check_gradient, check_half_precision
from small_methods import make_batch, make_method, train_steps
from torch import Tensor, nn

from trainables.methods.barlow import Barlow
from trainables.methods.parts.barlow import barlow_loss, barlow_terms, correlation
from trainables.networks.heads import build_head, describe_head

CONFIG = Barlow.Config(loss_scale=0.5, redundancy=0.1)
EPS = 1e-5


def noise(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def formula(z1: Tensor, z2: Tensor, scale: float, redundancy: float) -> Tensor:
    """The loss as the paper's listing has it, entry by entry."""
    norm = nn.BatchNorm1d(z1.shape[1], affine=False)
    c = norm(z1).T @ norm(z2) / len(z1)
    eye = torch.eye(len(c))
    return scale * ((c - eye).square() * (eye + redundancy * (1 - eye))).sum()


def test_terms_by_hand() -> None:
    first, second = [1.0, 1, -1, -1], [1.0, -1, 1, -1]  # mean 0, variance 1, uncorrelated
    z1 = torch.tensor([first, second]).T
    z2 = torch.tensor([first, first]).T
    # C = [[1, 1], [0, 0]], but for the eps beside the variances
    kept = 1 / (1 + EPS)
    torch.testing.assert_close(correlation(z1, z2), torch.tensor([[kept, kept], [0, 0]]))
    invariance, redundancy = barlow_terms(z1, z2)
    assert invariance.item() == pytest.approx((kept - 1) ** 2 + 1, rel=1e-6)
    assert redundancy.item() == pytest.approx(kept**2, rel=1e-6)
    assert barlow_loss(z1, z2, CONFIG).item() == pytest.approx(0.5 * (1 + 0.1), rel=1e-4)
    # Uncorrelated dimensions that agree: nothing is left.
    assert barlow_loss(z1, z1, CONFIG).item() < 1e-9


@given(st.integers(2, 12), st.integers(2, 6), st.integers(0, 1000))
def test_it_is_the_papers_listing(batch: int, dim: int, seed: int) -> None:
    z1, z2 = noise(seed, batch, dim), noise(seed + 1, batch, dim)
    torch.testing.assert_close(barlow_loss(z1, z2, CONFIG), formula(z1, z2, 0.5, 0.1), rtol=1e-4, atol=1e-5)


@given(st.integers(0, 1000), st.floats(0.5, 50), st.floats(-5, 5))
def test_scale_shift_and_order_of_the_batch_say_nothing(seed: int, scale: float, shift: float) -> None:
    z1, z2 = noise(seed, 16, 5).double(), noise(seed + 1, 16, 5).double()
    loss = barlow_loss(z1, z2, CONFIG)
    torch.testing.assert_close(barlow_loss(scale * z1 + shift, z2, CONFIG), loss, rtol=1e-3, atol=1e-5)
    order = torch.randperm(16, generator=torch.Generator().manual_seed(seed))
    torch.testing.assert_close(barlow_loss(z1[order], z2[order], CONFIG), loss)
    torch.testing.assert_close(barlow_loss(z2, z1, CONFIG), loss)


def test_a_dimension_that_is_constant_agrees_with_nothing() -> None:
    z = noise(0, 16, 3)
    z[:, 1] = 4.0
    assert barlow_terms(z, z)[0].item() == pytest.approx(1, rel=1e-3)


def test_gradient_reaches_both_sides() -> None:
    check_gradient(lambda a, b: barlow_loss(a, b, CONFIG), [noise(0, 6, 3), noise(1, 6, 3)])


def test_half_precision_around_it_changes_no_bit() -> None:
    check_half_precision(lambda a, b: barlow_loss(a, b, CONFIG), noise(0, 16, 8), noise(1, 16, 8))


def test_a_step_is_the_formula() -> None:
    method = make_method("barlow", loss_scale=0.3, redundancy=0.02)
    train_steps(method, 1)
    batch = make_batch(method, seed=5)
    again = copy.deepcopy(method)
    losses = method(batch)
    z1, z2 = (again.head(again.student(view)) for view in batch.views)
    torch.testing.assert_close(losses.total, formula(z1, z2, 0.3, 0.02), rtol=1e-4, atol=1e-5)
    invariance, redundancy = losses.terms["invariance"], losses.terms["redundancy"]
    torch.testing.assert_close(losses.total, 0.3 * (invariance + 0.02 * redundancy))


def test_the_head_has_two_hidden_layers_with_batch_norm() -> None:
    head = make_method("barlow", hidden=40, head_dim=12).head
    block = [nn.Linear, nn.BatchNorm1d, nn.ReLU]
    assert [type(layer) for layer in head] == [*block, *block, nn.Linear]
    assert [m.out_features for m in head if isinstance(m, nn.Linear)] == [40, 40, 12]


@pytest.mark.parametrize("name", ["barlow", "byol", "xd"])
def test_the_head_can_be_lent_by_a_later_teacher(name: str) -> None:
    head = make_method(name).own_head()
    again = build_head(describe_head(head))
    again.load_state_dict(head.state_dict())
    features = noise(0, 5, head[0].in_features)
    assert torch.equal(again.eval()(features), head.eval()(features))
