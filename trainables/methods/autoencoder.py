"""Autoencoder: the student encodes a view, a decoder rebuilds its pixels. No teacher, no labels.

The self-supervised baseline of RRKD (Ramos, Alampay & Abu, "Knowledge distillation with relative
representations for image representation learning"; `Ramos-Ramos/rrkd`), and how its AE-64 teacher is made.

    L = mean (x - d(f(x)))^2      x: the view's pixels in [-1, 1]; mean over pixels and batch, so that the
                                  size of an image does not change the loss

The decoder d mirrors RRKD's encoder whatever the student is: dropout, ReLU, Linear to `decoder_ratio` times
the features, dropout, ReLU, Linear to the pixels, tanh. For a convolutional student that is an MLP on its
pooled features; it is thrown away after training. Views come normalised by ImageNet's statistics, which is
undone for the target. With `colour: false` the target is the mean of the three channels, which of a grey
image is all there is. One view, which is input and target at once: augmentation makes more images, not a
harder task.

Expect on digits (preset `digits`, test_efficientnet of half width, two seeds): 5-shot ridge 78, untrained
68.9, raw pixels 82.6: a hard bar for what is asked to give the pixels back. Without augmentation 81, at a
learning rate of 6e-3 80.5, after 48 epochs 85; dropout of .5, RRKD's, costs 9 points here. The loss falls
from .37 in the first epoch to .08; the mean digit alone would give .29.

    raykd run search_spaces/autoencoder.yaml
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from trainables.core.numerics import in_float32
from trainables.methods.base import Batch, Context, Losses, Method, MethodConfig
from trainables.methods.parts.recipes import momentum_sgd, on_digits
from trainables.networks.backbones import Backbone, seeded
from trainables.teachers.teacher import Teacher
from trainables.views.operations import MEAN, STD


def target_pixels(view: Tensor, colour: bool) -> Tensor:
    """(B, 3, S, S) normalised -> (B, 3 S S), or (B, S S) without colour, pixels in [-1, 1]."""
    mean, std = (torch.tensor(values, device=view.device).view(3, 1, 1) for values in (MEAN, STD))
    pixels = 2 * (view * std + mean) - 1
    return (pixels if colour else pixels.mean(1)).flatten(1)


@in_float32
def reconstruction_loss(rebuilt_BP: Tensor, pixels_BP: Tensor) -> Tensor:
    """Mean square error over pixels and batch; scalar, 0 where every pixel is met. RRKD's `mse_loss`."""
    return F.mse_loss(rebuilt_BP, pixels_BP)


class Autoencoder(Method):
    name = "autoencoder"
    summary = "autoencoder: rebuild the view's pixels from the features; no teacher"
    views = 1

    class Config(MethodConfig):
        decoder_ratio: Annotated[float, Field(gt=0)] = Field(
            2.0, description="width of the decoder's hidden layer, as a multiple of the student's features"
        )
        dropout: Annotated[float, Field(ge=0, lt=1)] = Field(
            0.5, description="before each ReLU of the decoder"
        )
        colour: bool = Field(
            True, description="rebuild all three channels; false: their mean, enough for grey images"
        )

    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "paper": {  # MNIST: add `data: {name: mnist, image_size: 28}`
            "config": {"decoder_ratio": 2.0, "dropout": 0.5, "colour": False},
            "optim": momentum_sgd(lr=0.1, weight_decay=0.0, batch_size=128, schedule="constant"),
            "views": {"recipe": "none"},
            "epochs": 20,
        },
        "digits": {
            "config": {"dropout": 0.0, "colour": False},
            **on_digits(),
        },
    }
    config: Config

    def __init__(
        self, config: MethodConfig, student: Backbone, teacher: Teacher | None, context: Context
    ) -> None:
        super().__init__(config, student, teacher, context)
        features, pixels = student.feature_dim, context.image_size**2 * (3 if self.config.colour else 1)
        hidden = max(1, round(self.config.decoder_ratio * features))
        with seeded(context.seed):
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
        (view,) = batch.views
        rebuilt: Tensor = self.decoder(self.student(view))
        reconstruction = reconstruction_loss(rebuilt, target_pixels(view, self.config.colour))
        return Losses(reconstruction, {"reconstruction": reconstruction})
