"""Autoencoder: the student encodes a view, a decoder reconstructs its pixels. No teacher, no labels.

The self-supervised baseline of RRKD (Ramos, Alampay & Abu, "Knowledge distillation with relative
representations for image representation learning"; `Ramos-Ramos/rrkd`). RRKD's AE-64 teacher is made like
this.

    L = mean (x - d(f(x)))^2      x: the view's pixels in [-1, 1]; a mean over pixels and batch, so the loss
                                  does not depend on the image size

The decoder d mirrors RRKD's encoder for any student: dropout, ReLU, Linear to `decoder_ratio` times the
features, dropout, ReLU, Linear to the pixels, tanh. For a convolutional student it is an MLP on the pooled
features. It is thrown away after training. Views are normalised by ImageNet's statistics; the target undoes
that. With `colour: false` the target is the mean of the three channels, which is all the information in a
grey image. The one view is input and target at once: augmentation gives more images, not a harder task.

    raykd run search_spaces/autoencoder.yaml
"""

from __future__ import annotations

import functools
from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from trainables.core.numerics import in_float32
from trainables.methods.base import Batch, Losses, Method, MethodConfig, Presets
from trainables.methods.parts.recipes import momentum_sgd, on_digits
from trainables.views.operations import MEAN, STD


class AutoencoderConfig(MethodConfig):
    """Settings of the autoencoder."""

    decoder_ratio: float = Field(
        2.0, gt=0, description="width of the decoder's hidden layer, as a multiple of the student's features"
    )
    dropout: float = Field(0.5, ge=0, lt=1, description="before each ReLU of the decoder")
    colour: bool = Field(
        True, description="rebuild all three channels; false: their mean, enough for grey images"
    )


@functools.cache
def _pixel_statistics(where: torch.device) -> tuple[Tensor, Tensor]:
    """Mean and deviation of normalised views, (3, 1, 1). Kept, because copying makes the host wait."""
    mean, std = (torch.tensor(values, device=where).view(3, 1, 1) for values in (MEAN, STD))
    return mean, std


def target_pixels(view: Tensor, colour: bool) -> Tensor:
    """(B, 3, S, S) normalised -> (B, 3 S S), or (B, S S) without colour, pixels in [-1, 1]."""
    mean, std = _pixel_statistics(view.device)
    pixels = 2 * (view * std + mean) - 1
    return (pixels if colour else pixels.mean(1)).flatten(1)


@in_float32
def reconstruction_loss(rebuilt_BP: Tensor, pixels_BP: Tensor) -> Tensor:
    """Mean square error over pixels and batch. Scalar; 0 if every pixel is right. RRKD's `mse_loss`."""
    return F.mse_loss(rebuilt_BP, pixels_BP)


class Autoencoder(Method[AutoencoderConfig]):
    """Student and decoder as an autoencoder; see the head of this file."""

    name = "autoencoder"
    summary = "autoencoder: rebuild the view's pixels from the features; no teacher"
    views = 1
    presets: ClassVar[Presets] = {
        "paper": {  # MNIST: add `data: {name: mnist, image_size: 28}`
            "config": {"decoder_ratio": 2.0, "dropout": 0.5, "colour": False},
            "optim": momentum_sgd(lr=0.1, weight_decay=0.0, batch_size=128, schedule="constant"),
            "views": {"recipe": "none"},
            "epochs": 20,
        },
        "digits": {"config": {"dropout": 0.0, "colour": False}, **on_digits()},
    }
    # Dropout draws from the process's generator, whose state is not part of a method's state.
    small: ClassVar = {"dropout": 0.0}

    def build(self) -> None:
        """Make the decoder."""
        features = self.student.feature_dim
        pixels = self.context.image_size**2 * (3 if self.config.colour else 1)
        hidden = max(1, round(self.config.decoder_ratio * features))
        self.decoder = nn.Sequential(
            nn.Dropout(self.config.dropout),
            nn.ReLU(),
            nn.Linear(features, hidden),
            nn.Dropout(self.config.dropout),
            nn.ReLU(),
            nn.Linear(hidden, pixels),
            nn.Tanh(),
        )

    def forward(self, batch: Batch) -> Losses:
        """The reconstruction loss of the view."""
        (view,) = batch.views
        rebuilt: Tensor = self.decoder(self.student(view))
        reconstruction = reconstruction_loss(rebuilt, target_pixels(view, self.config.colour))
        return Losses(reconstruction, {"reconstruction": reconstruction})
