"""SACL: slimmed asymmetric contrastive learning, one view through a wide host, one through the slim student.

Meng et al. 2023, "Slimmed asymmetrical contrastive learning and cross distillation for lightweight model
training" (NeurIPS 2023); `mengjian0502/solo-learn-sparse`.

    z_A = g(f_host(x_A))     z_B = g(f_slim(x_B))     f_slim: the SAME weights, the first 1/K of each layer's
    L_SACL = Barlow(z_A, z_B)                         input and output channels
    z^_A = sg g(f_slim(x_A))     z^_B = sg g(f_host(x_B))                 (cross-distillation: exchanged)
    L_CD = 1/2 [Barlow(z_A, z^_A) + Barlow(z_B, z^_B)]
    xd_form: off      L = L_SACL
    xd_form: alpha    L = alpha L_SACL + (1 - alpha) L_CD      (the paper's; alpha .95)
    xd_form: lambda   L = L_SACL + lambda_CD L_CD              (the author's repository; lambda_CD 1e-4)

The slim network is the trial's `student` at its own width; it is probed, saved and exported. The host is
built around it, `host_width` (K) times as wide, and dropped at the end. View A always goes through the host;
the loss is not symmetrised. Each network has its own batch statistics, as with the author's switchable batch
norms. Both use one head, whose first layer is sliced like the others. `slice: l1_mask` follows the
repository, whose slim network keeps the filters of largest initial L1 norm, with two differences. The
repository ranks the filters of each convolution separately; here layers that share their channels (by a
residual sum, say) are ranked together. The repository keeps all inputs of a kept filter; here inputs are
removed with outputs, as in the paper. So the kept channels can be put first, and the student can be cut out.

host_width 1 is Barlow Twins, and with cross-distillation method `xd`. The paper's results are of 1.5x-1x. The
author's script for ImageNet-100 (`scripts/pretrain/imagenet-100/barlowACL.sh`) says `width=1.0`, so nothing
is slimmed, and `xdistill=False`. Optimizer, rate, views, scale of the loss and alpha are from that script.

    raykd run search_spaces/sacl.yaml
"""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from trainables.core.errors import UserError
from trainables.methods.base import Batch, Context, Losses, Method, Presets
from trainables.methods.parts.barlow import XdConfig, barlow_losses, cross_distilled
from trainables.methods.parts.recipes import SLIM_IMAGENET_100, on_digits
from trainables.networks.slimming import Host, build_host, check_host_of


class SaclConfig(XdConfig):
    """Settings of SACL."""

    host_width: float = Field(
        2.0, ge=1, le=16, description="K, the host's channels as a multiple of the student's; 1: no host"
    )
    slice: Literal["index", "l1_mask"] = Field(
        "index",
        description="which of the host's channels the student is: the first, or the largest; unused by "
        "`host_width: 1`",
    )
    xd_form: Literal["off", "alpha", "lambda"] = Field(
        "alpha",
        description="cross-distillation: none; alpha L + (1 - alpha) L_CD; or L + lambda_CD L_CD",
    )


class Sacl(Method[SaclConfig]):
    """SACL; see the head of this file."""

    name = "sacl"
    summary = "SACL: Barlow Twins between a wide host and the slim student inside it; no teacher"
    presets: ClassVar[Presets] = {
        "paper": {  # the paper's 1.5x-1x, trained as in the author's ImageNet-100 script
            "config": {
                "xd_form": "alpha",
                "alpha": 0.95,
                "host_width": 1.5,
                "slice": "index",
                "loss_scale": 0.1,
                "hidden": 2048,
                "head_dim": 2048,
            },
            **SLIM_IMAGENET_100,
        },
        "digits": {
            "config": {
                "host_width": 2.0,
                "loss_scale": 0.1,
                "redundancy": 0.02,
                "hidden": 256,
                "head_dim": 256,
            },
            **on_digits(batch_size=64, epochs=64),
        },
    }
    small: ClassVar = {"hidden": 24}
    host: Host | None

    def build(self) -> None:
        """Make the host, where there is one, and the head."""
        config, student = self.config, self.student
        self.host = None
        if config.host_width > 1:
            self.host = build_host(student, config.host_width, self.context.image_size, config.slice)
        self.head = config.head(self.host.feature_dim if self.host else student.feature_dim)

    @classmethod
    def check(cls, config: SaclConfig, context: Context) -> None:
        """Refuse a student that cannot be the slice of a wider network, or would lose what it has learned."""
        if context.student_has_learned and config.host_width > 1:
            raise UserError(
                "config.host_width",
                "draws a host around the student and rescales the student's weights, so what it has learned "
                "would be lost",
                value=config.host_width,
                expected="1, or a student with random weights",
            )
        if context.student is not None and context.student.spec is not None and config.host_width > 1:
            check_host_of(context.student.spec, config.host_width, context.image_size, config.slice)

    def forward(self, batch: Batch) -> Losses:
        """Barlow Twins' loss between host and student, with cross-distillation unless it is off."""
        view_a, view_b = batch.views
        z_a, z_b = self._wide(view_a), self._slim(view_b)
        plain = barlow_losses(z_a, z_b, self.config)
        if self.config.xd_form == "off":
            return plain
        swapped = z_a, z_b  # without a host both encoders are the same, so exchanging them changes nothing
        if self.host is not None:
            with torch.no_grad():
                swapped = self._slim(view_a), self._wide(view_b)
        return cross_distilled(plain, (z_a, z_b), swapped, self.config, self.config.xd_form)

    def _slim(self, images: Tensor) -> Tensor:
        """Embedding by the student. Zeros for the host's further features slice the head's first layer."""
        features = self.student(images)
        if self.host is not None:
            features = F.pad(features, (0, self.host.feature_dim - self.student.feature_dim))
        embedding: Tensor = self.head(features)
        return embedding

    def _wide(self, images: Tensor) -> Tensor:
        """Embedding by the host, or without one by the student."""
        features = self.student(images) if self.host is None else self.host(self.student, images)
        embedding: Tensor = self.head(features)
        return embedding
