"""Fitting a projection head to a frozen backbone: `teacher: {head: fit}`.

    z = f_T(x1)     z' = f_T(x2)                                          (two views; f_T does not change)
    q = u(g(z))     k = sg u(g_m(z'))     L = CE0(q, k; Q, T)             (MoCo-v2; only g is trained)

RETRO reuses the head of its teacher, and most files of weights have none. The training is a trial of MoCo
that has a teacher: the teacher is the backbone, and takes the place of the student. It leaves a file with
backbone, head and, if the backbone's file has one, the classifier.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from trainables.core.numerics import unit
from trainables.methods.base import Batch, Context, Losses
from trainables.methods.moco import Moco, MocoConfig
from trainables.methods.parts.frozen_student import freeze_student
from trainables.methods.parts.losses import info_nce
from trainables.methods.parts.momentum_encoder import MomentumEncoder, keys_of
from trainables.methods.parts.queue import Queue
from trainables.networks.heads import projection_head
from trainables.teachers.teacher import Teacher


class HeadFit(Moco[MocoConfig]):
    """MoCo-v2 whose student is a teacher's frozen backbone, so that only the head learns.

    It is no method to choose: without a `name` of its own it is not registered.
    """

    def __init__(self, config: MocoConfig, teacher: Teacher, context: Context) -> None:
        self.__dict__["_classifier"] = teacher.classifier  # past nn.Module: it is not trained
        super().__init__(config, teacher.backbone, None, context)

    def build(self) -> None:
        """Make head, queue and the head's momentum copy."""
        width, config = self.student.feature_dim, self.config
        self.head = projection_head(width, max(1, round(config.head_ratio * width)), config.head_dim)
        self.queue = Queue(config.queue_size, config.head_dim)
        self.mean = MomentumEncoder(head=self.head)
        freeze_student(self)

    def train(self, mode: bool = True) -> HeadFit:
        """Keep the backbone in eval mode: its statistics are the teacher's."""
        super().train(mode)
        self.student.eval()
        return self

    def forward(self, batch: Batch) -> Losses:
        """InfoNCE between the heads of both views' features."""
        view1, view2 = batch.views
        with torch.no_grad():
            features = self.student(view1)
        q = unit(self.head(features))
        k = keys_of(self._keys, self.mean, view2, self.queue, self.context.seed)
        self.queue.hold(k)
        contrastive = info_nce(q, k, self.queue.rows, self.config.temperature)
        return Losses(contrastive, {"contrastive": contrastive})

    def after_step(self, fraction: float) -> None:
        """Move the head's momentum copy and advance the queue."""
        self.mean.follow(self.config.momentum, head=self.head)
        self.queue.advance()

    def own_classifier(self) -> nn.Linear | None:
        """The classifier of the backbone's file: a teacher with a fitted head keeps it."""
        classifier: nn.Linear | None = self.__dict__["_classifier"]
        return classifier

    def _keys(self, images: Tensor) -> Tensor:
        keys: Tensor = self.mean(self.student(images))
        return keys
