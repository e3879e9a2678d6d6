"""XD: what dense encoders leave of cross-distillation, both forms of its weight, and the step by formula."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from small_methods import adam_steps, make_batch, make_method, train_steps

from trainables.core.errors import UserError
from trainables.methods.parts.barlow import barlow_loss, barlow_losses, barlow_terms, cross_distilled
from trainables.methods.xd import Xd
from trainables.training.resolve import resolve


@given(st.integers(3, 20), st.integers(2, 8), st.floats(0.1, 10), st.integers(0, 1000))
def test_dense_encoders_leave_no_diagonal_but_for_eps(batch: int, dim: int, scale: float, seed: int) -> None:
    z = scale * torch.randn(batch, dim, generator=torch.Generator().manual_seed(seed)).double()
    invariance, _ = barlow_terms(z, z)
    variance = z.var(0, correction=0)
    # C_ii = v / (v + eps), so each dimension misses 1 by eps / (v + eps)
    expected = (1e-5 / (variance + 1e-5)).square().sum()
    torch.testing.assert_close(invariance, expected, rtol=1e-4, atol=1e-12)


@pytest.mark.parametrize("form", ["alpha", "lambda"])
def test_a_step_is_the_formula(form: str) -> None:
    method = make_method("xd", xd_form=form, alpha=0.7, xd_weight=0.3, loss_scale=0.2)
    train_steps(method, 1)
    batch = make_batch(method, seed=5)
    again = copy.deepcopy(method)
    losses = method(batch)
    a, b = (again.head(again.student(view)) for view in batch.views)
    plain = barlow_loss(a, b, method.config)
    cross = (barlow_loss(a, a.detach(), method.config) + barlow_loss(b, b.detach(), method.config)) / 2
    total = 0.7 * plain + 0.3 * cross  # alpha .7 and lambda_CD .3 differ in the first factor alone
    torch.testing.assert_close(losses.total, total if form == "alpha" else total + 0.3 * plain)
    torch.testing.assert_close(losses.terms["cross"], cross)
    torch.testing.assert_close(losses.terms["barlow"], plain)


def test_no_gradient_through_the_exchanged_encoders() -> None:
    config = Xd.Config(alpha=0.0)
    z = [torch.randn(8, 4, requires_grad=True) for _ in range(4)]
    losses = cross_distilled(barlow_losses(z[0], z[1], config), (z[0], z[1]), (z[2], z[3]), config, "alpha")
    losses.total.backward()
    assert z[2].grad is None and z[3].grad is None
    held = z[2].detach()
    (alone,) = torch.autograd.grad(barlow_loss(z[0], held, config) / 2, z[0])
    torch.testing.assert_close(z[0].grad, alone)


@pytest.mark.parametrize("off", [{"xd_form": "alpha", "alpha": 1.0}, {"xd_form": "lambda", "xd_weight": 0.0}])
def test_without_its_weight_it_is_barlow_twins(off: dict[str, Any]) -> None:
    xd, barlow = make_method("xd", **off), make_method("barlow")
    assert train_steps(xd, 3) == train_steps(barlow, 3)


def test_cross_distillation_decorrelates_the_dimensions_of_a_view() -> None:
    """The gradient of L_CD alone takes redundancy within each view down."""
    method = make_method("xd", alpha=0.0)
    first, *_, last = adam_steps(method)
    assert last["cross"] < 0.8 * first["cross"]


def test_a_share_above_one_is_refused() -> None:
    raw: dict[str, Any] = {"method": "xd", "student": {"arch": "test_resnet"}, "epochs": 1}
    with pytest.raises(UserError, match=r"config\.alpha"):
        resolve({**raw, "config": {"alpha": 1.5}})
