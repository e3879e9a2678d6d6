"""MoCo-v2: contrast against a queue of past keys. The no-teacher baseline; teachers are trained with it.

Chen et al. 2020, "Improved baselines with momentum contrastive learning" (arXiv 2003.04297);
`facebookresearch/moco`. Method `ssl_small` has settings for small networks.

    q = u(g(f(x1)))     k = sg u(g_m(f_m(x2)))     L = CE0(q, k; Q, T)

    raykd run search_spaces/moco.yaml
"""

from __future__ import annotations

from typing import ClassVar, TypeVar

from pydantic import Field

from trainables.core.numerics import unit
from trainables.methods.base import Batch, Losses, Presets
from trainables.methods.parts.contrast import Contrast, ContrastConfig
from trainables.methods.parts.losses import info_nce
from trainables.methods.parts.momentum_encoder import MomentumEncoder, keys_of
from trainables.methods.parts.queue import Queue
from trainables.methods.parts.recipes import MOCO_V2, on_digits
from trainables.networks.heads import projection_head


class MocoConfig(ContrastConfig):
    """Settings of MoCo-v2."""

    head_ratio: float = Field(
        1.0, gt=0, description="width of the head's hidden layer, as a multiple of the student's features"
    )
    head_dim: int = Field(128, ge=2, description="dimensions of an embedding")


M = TypeVar("M", bound=MocoConfig)


class Moco(Contrast[M]):
    """MoCo-v2; see the head of this file. A subclass can have other settings (`ssl_small`)."""

    name = "moco"
    summary = "MoCo-v2: contrastive learning with a momentum encoder and a queue; no teacher"
    presets: ClassVar[Presets] = {
        "paper": {
            "config": {"queue_size": 65536, "momentum": 0.999, "temperature": 0.2, "head_ratio": 1.0},
            **MOCO_V2,
        },
        "digits": {"config": {"queue_size": 512, "momentum": 0.99, "temperature": 0.2}, **on_digits()},
    }

    def build(self) -> None:
        """Make head, queue and momentum encoder."""
        d, config = self.student.feature_dim, self.config
        self.head = projection_head(d, max(1, round(config.head_ratio * d)), config.head_dim)
        self.queue = Queue(config.queue_size, config.head_dim)
        self.mean = MomentumEncoder(student=self.student, head=self.head)

    def forward(self, batch: Batch) -> Losses:
        """InfoNCE of the first view's queries and the second view's keys."""
        view1, view2 = batch.views
        q = unit(self.head(self.student(view1)))
        k = keys_of(self.mean, self.mean, view2, self.queue, self.context.seed)
        self.queue.hold(k)
        contrastive = info_nce(q, k, self.queue.rows, self.config.temperature)
        return Losses(contrastive, {"contrastive": contrastive})
