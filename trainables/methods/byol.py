"""BYOL: predict the momentum encoder's projection of the other view. No teacher, no negatives.

Grill et al. 2020, "Bootstrap your own latent" (arXiv 2006.07733); `vturrisi/solo-learn`.

    p = h(g(f(x)))     z' = sg g_m(f_m(x'))     L = |u(p) - u(z')|^2 + |u(p') - u(z)|^2      (both orders)

f_m and g_m are the momentum encoder. Its momentum rises from `momentum` to 1 along a cosine over the
training. Projector g and predictor h are Linear-BN-ReLU-Linear. L is 0 too if all images have the same
embedding; only predictor and momentum encoder prevent this. So the value of L says nothing about the
features.

    raykd run search_spaces/byol.yaml
"""

from __future__ import annotations

import math
from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn

from trainables.core.numerics import unit
from trainables.methods.base import Batch, Losses, Method, MethodConfig, Presets
from trainables.methods.parts.losses import consistency
from trainables.methods.parts.momentum_encoder import MomentumEncoder
from trainables.methods.parts.recipes import on_digits
from trainables.networks.projectors import batch_norm_head


class ByolConfig(MethodConfig):
    """Settings of BYOL."""

    momentum: float = Field(
        0.99,
        ge=0,
        lt=1,
        description="how slowly the momentum encoder follows at first; it rises to 1 by a cosine",
    )
    hidden: int = Field(4096, ge=1, description="width of the hidden layers of projector and predictor")
    head_dim: int = Field(256, ge=2, description="dimensions of an embedding")


def byol_loss(p1_BD: Tensor, p2_BD: Tensor, z1_BD: Tensor, z2_BD: Tensor) -> Tensor:
    """`|u(p1) - u(z2)|^2 + |u(p2) - u(z1)|^2`: each view's prediction against the other view's projection.

    Rows of any length. Scalar, the batch's mean of the sum over both orders of 2 - 2 cos, from 0 to 8. No
    gradient reaches `z`. Grill et al. 2020, equation (2), symmetrised.
    """
    return consistency(unit(p1_BD), unit(z2_BD)) + consistency(unit(p2_BD), unit(z1_BD))


def rising_momentum(base: float, fraction: float) -> float:
    """`1 - (1 - base) (cos(pi fraction) + 1) / 2`: `base` at fraction 0 of the training, 1 at its end.

    Grill et al. 2020, section 3.2.
    """
    return 1 - (1 - base) * (math.cos(math.pi * fraction) + 1) / 2


class Byol(Method[ByolConfig]):
    """BYOL; see the head of this file."""

    name = "byol"
    summary = "BYOL: predict the momentum encoder's projection of the other view; no teacher, no negatives"
    presets: ClassVar[Presets] = {
        "paper": {  # solo-learn's ImageNet recipe
            "config": {"momentum": 0.99, "hidden": 4096, "head_dim": 256},
            "optim": {
                "optimizer": "lars",
                "lr": 3.6,  # 0.45 at a batch of 256
                "sgd_momentum": 0.9,
                "weight_decay": 1e-6,
                "batch_size": 2048,
                "schedule": "cosine_after_warmup",
                "warmup_epochs": 10,
            },
            "views": {"recipe": "solo_learn"},
            "epochs": 100,
        },
        "digits": {
            "config": {"momentum": 0.9, "hidden": 256, "head_dim": 64},
            **on_digits(lr=5e-3, batch_size=64),
        },
    }
    # The gradients of a narrower predictor are so steep that rounding errors become visible.
    small: ClassVar = {"hidden": 64}

    def build(self) -> None:
        """Make projector, predictor and momentum encoder."""
        hidden, d = self.config.hidden, self.config.head_dim
        self.head = batch_norm_head(self.student.feature_dim, hidden, d)
        self.predictor = batch_norm_head(d, hidden, d)
        self.mean = MomentumEncoder(student=self.student, head=self.head)  # called `mean` in checkpoints

    def forward(self, batch: Batch) -> Losses:
        """The loss of both orders of the two views."""
        view1, view2 = batch.views
        p1, p2 = (self.predictor(self.head(self.student(view))) for view in (view1, view2))
        loss = byol_loss(p1, p2, self._target(view1), self._target(view2))
        return Losses(loss, {"prediction": loss})

    def after_step(self, fraction: float) -> None:
        """Move the momentum encoder."""
        momentum = rising_momentum(self.config.momentum, fraction)
        self.mean.follow(momentum, student=self.student, head=self.head)

    def own_head(self) -> nn.Module:
        """The projector."""
        return self.head

    @torch.no_grad()
    def _target(self, images: Tensor) -> Tensor:
        projection: Tensor = self.mean(images)
        return projection
