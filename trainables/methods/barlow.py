"""Barlow Twins: the embeddings of two views agree, and no two of their dimensions correlate.

Zbontar et al. 2021, "Barlow Twins: Self-supervised learning via redundancy reduction" (arXiv 2103.03230);
`vturrisi/solo-learn`.

    z = g(f(x))    z' = g(f(x'))    C = BN(z)^T BN(z') / B (of the global batch)
    L = s [sum_i (C_ii - 1)^2 + lambda sum_{i != j} C_ij^2]

No teacher, no negatives, no momentum encoder. L is a sum over `head_dim` dimensions and over their pairs. So
the best lambda falls with `head_dim`, and values of L with different settings cannot be compared.

    raykd run search_spaces/barlow.yaml
"""

from __future__ import annotations

from typing import ClassVar

from torch import nn

from trainables.methods.base import Batch, Losses, Method, Presets
from trainables.methods.parts.barlow import BarlowConfig, barlow_losses
from trainables.methods.parts.recipes import on_digits


class Barlow(Method[BarlowConfig]):
    """Barlow Twins; see the head of this file."""

    name = "barlow"
    summary = "Barlow Twins: two views' embeddings agree in each dimension, no two dimensions say the same"
    presets: ClassVar[Presets] = {
        "paper": {  # solo-learn's ImageNet recipe
            "config": {"loss_scale": 0.048, "redundancy": 0.0051, "hidden": 4096, "head_dim": 4096},
            "optim": {
                "optimizer": "lars",
                "lr": 0.8,
                "sgd_momentum": 0.9,
                "weight_decay": 1.5e-6,
                "batch_size": 256,
                "schedule": "cosine_after_warmup",
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
    small: ClassVar = {"hidden": 24}

    def build(self) -> None:
        """Make the projection head."""
        self.head = self.config.head(self.student.feature_dim)

    def forward(self, batch: Batch) -> Losses:
        """Barlow Twins' loss of the two views."""
        z1, z2 = (self.head(self.student(view)) for view in batch.views)
        return barlow_losses(z1, z2, self.config)

    def own_head(self) -> nn.Module:
        """The projection head."""
        return self.head
