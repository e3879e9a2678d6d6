"""XD: Barlow Twins with cross-distillation alone, both encoders dense.

Meng et al. 2023, "Slimmed asymmetrical contrastive learning and cross distillation for lightweight model
training" (NeurIPS 2023), its ablation without slimming; `mengjian0502/solo-learn-sparse`.

    L_CD = 1/2 [Barlow(z_A, sg z^_A) + Barlow(z_B, sg z^_B)]        z^: by the exchanged encoders, no gradient
    alpha:   L = alpha Barlow(z_A, z_B) + (1 - alpha) L_CD          (the paper's; alpha .95)
    lambda:  L = Barlow(z_A, z_B) + lambda_CD L_CD                  (the author's repository; lambda_CD 1e-4)

With both encoders dense, exchanging them changes nothing: z^ is z, and is not computed again (of a network
with dropout the author's code would draw it anew). So L_CD's diagonal term is zero up to BatchNorm's eps, and
what is left of it decorrelates the dimensions within each view. The method `sacl` has slimmed encoders.

Expect on digits (preset `digits`, half-width test_efficientnet, two seeds): 5-shot ridge 79 to 81; Barlow
Twins alone 76 to 80, untrained 68.9.

    raykd run search_spaces/xd.yaml
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from pydantic import Field
from torch import nn

from trainables.methods.base import Batch, Context, Losses, Method, MethodConfig
from trainables.methods.parts.barlow import XdConfig, barlow_losses, cross_distilled
from trainables.methods.parts.recipes import SLIM_IMAGENET_100, on_digits
from trainables.networks.backbones import Backbone, seeded
from trainables.teachers.teacher import Teacher


class Xd(Method):
    name = "xd"
    summary = "XD: Barlow Twins with cross-distillation between two dense encoders; no teacher"

    class Config(XdConfig):
        xd_form: Literal["alpha", "lambda"] = Field(
            "alpha", description="alpha: alpha L + (1 - alpha) L_CD; lambda: L + lambda_CD L_CD"
        )

    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
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
    config: Config

    def __init__(
        self, config: MethodConfig, student: Backbone, teacher: Teacher | None, context: Context
    ) -> None:
        super().__init__(config, student, teacher, context)
        with seeded(context.seed):
            self.head = self.config.head(student.feature_dim)

    def forward(self, batch: Batch) -> Losses:
        z_a, z_b = (self.head(self.student(view)) for view in batch.views)
        plain = barlow_losses(z_a, z_b, self.config)
        return cross_distilled(plain, (z_a, z_b), (z_a, z_b), self.config, self.config.xd_form)

    def own_head(self) -> nn.Module:
        return self.head
