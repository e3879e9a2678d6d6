"""BYOL: predict the mean student's projection of the other view. No teacher, no negatives.

Grill et al. 2020, "Bootstrap your own latent" (arXiv 2006.07733); `vturrisi/solo-learn`.

    p = h(g(f(x)))     z' = sg g_m(f_m(x'))     L = |u(p) - u(z')|^2 + |u(p') - u(z)|^2      (both orders)

f_m and g_m are the mean student's; its momentum rises from `momentum` to 1 along a cosine of the training's
progress. Projector g and predictor h are Linear-BN-ReLU-Linear; the predictor and the mean student are what
keeps all images from falling into one point, where L is 0 as well. Constant outputs are L's trivial minimum,
so its value says nothing about the features.

Expect on digits (preset `digits`, half-width test_efficientnet, two seeds): 5-shot ridge 77 to 78; untrained
68.9. So few steps need a mean student that follows fast: at a batch of 128 and lr 2e-3, momentum .9 gives 65
to 68 and the paper's .99 gives 61 to 64, both below the untrained student.

    raykd run search_spaces/byol.yaml
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn

from trainables.core.numerics import unit
from trainables.methods.base import Batch, Context, Losses, Method, MethodConfig
from trainables.methods.parts.losses import consistency
from trainables.methods.parts.momentum_encoder import MeanStudent
from trainables.methods.parts.recipes import on_digits
from trainables.networks.backbones import Backbone, seeded
from trainables.networks.projectors import batch_norm_head
from trainables.teachers.teacher import Teacher


def byol_loss(p1_BD: Tensor, p2_BD: Tensor, z1_BD: Tensor, z2_BD: Tensor) -> Tensor:
    """`|u(p1) - u(z2)|^2 + |u(p2) - u(z1)|^2`: each view's prediction against the other's projection.

    Of any length. Scalar, the batch's mean of the sum over both orders of 2 - 2 cos, from 0 to 8; no gradient
    reaches `z`. Grill et al. 2020, equation (2), symmetrised.
    """
    return consistency(unit(p1_BD), unit(z2_BD)) + consistency(unit(p2_BD), unit(z1_BD))


def rising_momentum(base: float, progress: float) -> float:
    """`1 - (1 - base) (cos(pi progress) + 1) / 2`: `base` at progress 0, 1 at 1. Ibid., section 3.2."""
    return 1 - (1 - base) * (math.cos(math.pi * progress) + 1) / 2


class Byol(Method):
    name = "byol"
    summary = "BYOL: predict the mean student's projection of the other view; no teacher, no negatives"

    class Config(MethodConfig):
        momentum: Annotated[float, Field(ge=0, lt=1)] = Field(
            0.99, description="how slowly the mean student follows at first; it rises to 1 by a cosine"
        )
        hidden: Annotated[int, Field(ge=1)] = Field(
            4096, description="width of the hidden layers of projector and predictor"
        )
        head_dim: Annotated[int, Field(ge=2)] = Field(256, description="dimensions of an embedding")

    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "paper": {  # solo-learn's ImageNet recipe
            "config": {"momentum": 0.99, "hidden": 4096, "head_dim": 256},
            "optim": {
                "optimizer": "lars",
                "lr": 3.6,  # 0.45 at a batch of 256
                "sgd_momentum": 0.9,
                "weight_decay": 1e-6,
                "batch_size": 2048,
                "schedule": "cosine",
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
    config: Config

    def __init__(
        self, config: MethodConfig, student: Backbone, teacher: Teacher | None, context: Context
    ) -> None:
        super().__init__(config, student, teacher, context)
        hidden, d = self.config.hidden, self.config.head_dim
        with seeded(context.seed):
            self.head = batch_norm_head(student.feature_dim, hidden, d)
            self.predictor = batch_norm_head(d, hidden, d)
        self.mean = MeanStudent(student=student, head=self.head)

    def forward(self, batch: Batch) -> Losses:
        view1, view2 = batch.views
        p1, p2 = (self.predictor(self.head(self.student(view))) for view in (view1, view2))
        loss = byol_loss(p1, p2, self._target(view1), self._target(view2))
        return Losses(loss, {"prediction": loss})

    def after_step(self, progress: float) -> None:
        momentum = rising_momentum(self.config.momentum, progress)
        self.mean.follow(momentum, student=self.student, head=self.head)

    def own_head(self) -> nn.Module:
        return self.head

    @torch.no_grad()
    def _target(self, images: Tensor) -> Tensor:
        projection: Tensor = self.mean(images)
        return projection
