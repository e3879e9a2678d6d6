"""Autoencoder: what it rebuilds, its loss by hand, RRKD's decoder, and that it learns to rebuild."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from loss_checks import check_half_precision
from small_methods import SIDE, adam_steps, make_batch, make_method
from torch import nn

from trainables.methods.autoencoder import reconstruction_loss, target_pixels
from trainables.views.augmented import plain


@given(st.integers(0, 1000))
def test_the_target_is_the_pixels_between_minus_one_and_one(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    images = torch.randint(0, 256, (2, 3, 8, 8), generator=generator, dtype=torch.uint8)
    view = plain(images, 8)
    expected = images / 127.5 - 1  # 0 -> -1, 255 -> 1
    torch.testing.assert_close(target_pixels(view, True), expected.reshape(2, 192), rtol=0, atol=1e-5)
    # However the batch lies in memory.
    last = view.contiguous(memory_format=torch.channels_last)
    assert torch.equal(target_pixels(last, True), target_pixels(view, True))
    grey = images[:, :1].expand(2, 3, 8, 8)
    rebuilt = target_pixels(plain(grey, 8), False)
    torch.testing.assert_close(rebuilt, (grey[:, 0] / 127.5 - 1).reshape(2, 64), rtol=0, atol=1e-5)


def test_loss_by_hand() -> None:
    rebuilt, pixels = torch.tensor([[0.5, -1.0], [0.0, 0.0]]), torch.tensor([[1.0, -1.0], [0.5, -1.0]])
    assert reconstruction_loss(rebuilt, pixels).item() == pytest.approx((0.25 + 0.25 + 1) / 4)
    assert reconstruction_loss(pixels, pixels).item() == 0.0
    check_half_precision(reconstruction_loss, rebuilt.bfloat16(), pixels)


@pytest.mark.parametrize("colour", [True, False])
def test_a_step_is_the_formula(colour: bool) -> None:
    method = make_method("autoencoder", colour=colour)
    batch = make_batch(method, seed=5)
    again = copy.deepcopy(method)
    (view,) = batch.views
    one, two = again.decoder[2], again.decoder[5]
    hidden = F.relu(F.relu(again.student(view)) @ one.weight.T + one.bias)
    rebuilt = torch.tanh(hidden @ two.weight.T + two.bias)
    losses = method(batch)
    torch.testing.assert_close(losses.total, (rebuilt - target_pixels(view, colour)).square().mean())
    assert torch.equal(losses.total, losses.terms["reconstruction"])
    assert rebuilt.shape == (8, SIDE * SIDE * (3 if colour else 1))


def test_the_decoder_is_rrkds() -> None:
    """Features -> twice as many -> pixels, as AE-64 (64, 128, 784) and AE-32 (32, 64, 784) have it."""
    method = make_method("autoencoder", colour=False, dropout=0.5)
    linears = [(m.in_features, m.out_features) for m in method.decoder if isinstance(m, nn.Linear)]
    features = method.student.feature_dim
    assert linears == [(features, 2 * features), (2 * features, SIDE * SIDE)]
    kinds = [type(m) for m in method.decoder]
    assert kinds == [nn.Dropout, nn.ReLU, nn.Linear, nn.Dropout, nn.ReLU, nn.Linear, nn.Tanh]
    assert [m.p for m in method.decoder if isinstance(m, nn.Dropout)] == [0.5, 0.5]
    wide = make_method("autoencoder", decoder_ratio=3.0).decoder[2]
    assert wide.out_features == 3 * features


def test_it_learns_to_tell_images_apart() -> None:
    """Below what the mean image gives: something of each image came through the features."""
    method = make_method("autoencoder", colour=False)
    blocks = torch.randn(8, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    batch = make_batch(method)._replace(views=[F.interpolate(blocks, SIDE)])
    pixels = target_pixels(batch.views[0], False)
    adam_steps(method, 40, batch=batch)
    assert method(batch).total.item() < pixels.var(0, unbiased=False).mean().item() / 4
