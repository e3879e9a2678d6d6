"""XD: Barlow Twins with cross-distillation alone; both encoders are dense.

Meng et al. 2023, "Slimmed asymmetrical contrastive learning and cross distillation for lightweight model
training" (NeurIPS 2023), its ablation without slimming; `mengjian0502/solo-learn-sparse`.

    L_CD = 1/2 [Barlow(z_A, sg z^_A) + Barlow(z_B, sg z^_B)]        z^: by the exchanged encoders, no gradient
    alpha:   L = alpha Barlow(z_A, z_B) + (1 - alpha) L_CD          (the paper's; alpha .95)
    lambda:  L = Barlow(z_A, z_B) + lambda_CD L_CD                  (the author's repository; lambda_CD 1e-4)

Exchanging two dense encoders changes nothing: z^ is z, and is not computed again. (For a network with dropout
the author's code would draw it anew.) So the diagonal term of L_CD is 0 up to BatchNorm's eps, and the rest
of L_CD decorrelates the dimensions within each view. Method `sacl` has slimmed encoders.

    raykd run search_spaces/xd.yaml
"""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field
from torch import nn

from trainables.methods.base import Batch, Losses, Method, Presets
from trainables.methods.parts.barlow import XdConfig, barlow_losses, cross_distilled
from trainables.methods.parts.recipes import SLIM_IMAGENET_100, on_digits


class DenseXdConfig(XdConfig):
    """Settings of XD."""

    xd_form: Literal["alpha", "lambda"] = Field(
        "alpha", description="alpha: alpha L + (1 - alpha) L_CD; lambda: L + lambda_CD L_CD"
    )


class Xd(Method[DenseXdConfig]):
    """Cross-distillation between dense encoders; see the head of this file."""

    name = "xd"
    summary = "XD: Barlow Twins with cross-distillation between two dense encoders; no teacher"
    presets: ClassVar[Presets] = {
        "paper": {  # the author's ImageNet-100 recipe
            "config": {
                "xd_form": "alpha",
                "alpha": 0.95,
                "loss_scale": 0.1,
                "hidden": 2048,
                "head_dim": 2048,
            },
            **SLIM_IMAGENET_100,
        },
        "digits": {
            "config": {"alpha": 0.95, "loss_scale": 0.1, "redundancy": 0.02, "hidden": 256, "head_dim": 256},
            **on_digits(lr=5e-3, batch_size=64),
        },
    }
    small: ClassVar = {"hidden": 24}

    def build(self) -> None:
        """Make the projection head."""
        self.head = self.config.head(self.student.feature_dim)

    def forward(self, batch: Batch) -> Losses:
        """Barlow Twins' loss of the two views, with cross-distillation."""
        z_a, z_b = (self.head(self.student(view)) for view in batch.views)
        plain = barlow_losses(z_a, z_b, self.config)
        return cross_distilled(plain, (z_a, z_b), (z_a, z_b), self.config, self.config.xd_form)

    def own_head(self) -> nn.Module:
        """The projection head."""
        return self.head
