"""Barlow Twins: embeddings of two views whose dimensions agree, each with itself and with no other.

Zbontar et al. 2021, "Barlow Twins: Self-supervised learning via redundancy reduction" (arXiv 2103.03230);
`vturrisi/solo-learn`.

    z = g(f(x))    z' = g(f(x'))    C = BN(z)^T BN(z') / B (of the global batch)
    L = s [sum_i (C_ii - 1)^2 + lambda sum_{i != j} C_ij^2]

No teacher, no negatives, no mean student. L is a sum over `head_dim` dimensions and their pairs, so the best
lambda falls with `head_dim` and the size of L says little across settings.

Expect on digits (preset `digits`, half-width test_efficientnet, two seeds): 5-shot ridge 76 to 80, one run of
64 epochs 85.7; untrained 68.9. It needs steps more than anything: with batches of 128 instead of 64 it stays
at 73 to 74, with `head_dim: 1024` at 66 to 71, and views of strength 1 are too much for 16 epochs.

    raykd run search_spaces/barlow.yaml
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from torch import nn

from trainables.methods.base import Batch, Context, Losses, Method, MethodConfig
from trainables.methods.parts.barlow import BarlowConfig, barlow_losses
from trainables.methods.parts.recipes import on_digits
from trainables.networks.backbones import Backbone, seeded
from trainables.teachers.teacher import Teacher


class Barlow(Method):
    name = "barlow"
    summary = "Barlow Twins: two views' embeddings agree in each dimension, no two dimensions say the same"

    class Config(BarlowConfig):
        pass

    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "paper": {  # solo-learn's ImageNet recipe
            "config": {"loss_scale": 0.048, "redundancy": 0.0051, "hidden": 4096, "head_dim": 4096},
            "optim": {
                "optimizer": "lars",
                "lr": 0.8,
                "sgd_momentum": 0.9,
                "weight_decay": 1.5e-6,
                "batch_size": 256,
                "schedule": "cosine",
                "warmup_epochs": 10,
            },
            "views": {"recipe": "solo_learn"},
            "epochs": 100,
        },
        "digits": {
            "config": {"loss_scale": 0.1, "redundancy": 0.02, "hidden": 256, "head_dim": 256},
            **on_digits(lr=5e-3, batch_size=64),
        },
    }
    config: Config

    def __init__(
        self, config: MethodConfig, student: Backbone, teacher: Teacher | None, context: Context
    ) -> None:
        super().__init__(config, student, teacher, context)
        with seeded(context.seed):
            self.head = self.config.head(student.feature_dim)

    def forward(self, batch: Batch) -> Losses:
        z1, z2 = (self.head(self.student(view)) for view in batch.views)
        return barlow_losses(z1, z2, self.config)

    def own_head(self) -> nn.Module:
        return self.head
