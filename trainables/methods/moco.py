"""MoCo-v2: contrast against a queue of past keys. The no-teacher baseline, and how teachers are trained.

Chen et al. 2020, "Improved baselines with momentum contrastive learning" (arXiv 2003.04297);
`facebookresearch/moco`. As it suits small networks: method `ssl_small`.

    q = u(g(f(x1)))     k = sg u(g_m(f_m(x2)))     L = CE0(q, k; Q, T)

Expect on digits (preset `digits`, test_efficientnet, two seeds): 5-shot ridge 85 to 87, at view strength 1
74 to 80; untrained 77.5. In the first epochs it dips below the untrained student.

    raykd run search_spaces/moco.yaml
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar

from pydantic import Field

from trainables.core.numerics import unit
from trainables.methods.base import Batch, Context, Losses, MethodConfig
from trainables.methods.parts.contrast import Contrast, ContrastConfig
from trainables.methods.parts.losses import info_nce
from trainables.methods.parts.momentum_encoder import MeanStudent, keys_of
from trainables.methods.parts.queue import Queue
from trainables.methods.parts.recipes import MOCO_V2, on_digits
from trainables.networks.backbones import Backbone, seeded
from trainables.networks.heads import projection_head
from trainables.teachers.teacher import Teacher


class Moco(Contrast):
    name = "moco"
    summary = "MoCo-v2: contrastive learning with a mean student and a queue; no teacher"

    class Config(ContrastConfig):
        head_ratio: Annotated[float, Field(gt=0)] = Field(
            1.0, description="width of the head's hidden layer, as a multiple of the student's features"
        )
        head_dim: Annotated[int, Field(ge=2)] = Field(128, description="dimensions of an embedding")

    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "paper": {
            "config": {"queue_size": 65536, "momentum": 0.999, "temperature": 0.2, "head_ratio": 1.0},
            **MOCO_V2,
        },
        "digits": {
            "config": {"queue_size": 512, "momentum": 0.99, "temperature": 0.2},
            **on_digits(),
        },
    }
    config: Config

    def __init__(
        self, config: MethodConfig, student: Backbone, teacher: Teacher | None, context: Context
    ) -> None:
        super().__init__(config, student, teacher, context)
        d = student.feature_dim
        with seeded(context.seed):
            self.head = projection_head(d, max(1, round(self.config.head_ratio * d)), self.config.head_dim)
            self.queue = Queue(self.config.queue_size, self.config.head_dim)
        self.mean = MeanStudent(student=student, head=self.head)

    def forward(self, batch: Batch) -> Losses:
        view1, view2 = batch.views
        q = unit(self.head(self.student(view1)))
        k = keys_of(self.mean, self.mean, view2, self.queue, self.context.seed)
        self.queue.hold(k)
        contrastive = info_nce(q, k, self.queue.rows, self.config.temperature)
        return Losses(contrastive, {"contrastive": contrastive})
