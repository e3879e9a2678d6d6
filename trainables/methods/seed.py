"""SEED: the student's similarities to a queue of teacher embeddings follow the teacher's own.

Fang et al. 2021, "SEED: Self-supervised distillation for visual representation" (arXiv 2101.04731);
`jacobswan1/SEED`.

    s = u(g(f(x)))     t = u(g_T(f_T(x)))                                 (one view x, shared)
    p_s = softmax([s.t, s.Q] / T_s)     p_t = softmax([t.t, t.Q] / T_t)     L = -sum p_t log p_s

Q holds past teacher embeddings; there is no mean student. With the paper's T_t of 1e-4 the target is all but
one-hot at t.t, and the loss InfoNCE with the teacher's embedding as the key; warmer targets spread over what
the teacher finds alike. Similarities and softmaxes are float32 whatever the networks run in: that T_t
turns a rounding of 1e-3 into 10 logits.

In preset `paper` the rate rises over 5 epochs, as the paper says. The published code goes in those epochs
from the rate of a batch of 256 to that of the batch it has: with 256 it is at the full rate from the start.
`warmup_epochs: 0` is the same to .2 %, by which the cosine falls in 5 epochs of 200.

Expect on digits (preset `digits`, test_efficientnet, two seeds): 5-shot ridge 89 to 90 from a test_resnet
taught by 64 epochs of MoCo at view strength 1, with `teacher_temperature: 0.05` 90.5 to 91; untrained
77.5. The loss falls from 5.4 in the first epoch to 3.4: below log(K + 1), no preference at all, which
is 6.2, and never below the target's entropy.

    raykd run search_spaces/seed.yaml
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from trainables.core.numerics import in_float32, unit
from trainables.methods.base import Batch, Context, Losses, MethodConfig
from trainables.methods.parts.headed import Headed
from trainables.methods.parts.queue import Queue, check_queue
from trainables.methods.parts.recipes import MOCO_V2, on_digits
from trainables.networks.backbones import Backbone, seeded
from trainables.networks.heads import projection_head
from trainables.teachers.teacher import Teacher


@in_float32
def seed_loss(
    s_BD: Tensor, t_BD: Tensor, queue_KD: Tensor, temperature: float, teacher_temperature: float
) -> Tensor:
    """`-sum p_t log p_s` over the teacher's own embedding and the queue, with a temperature for each side.

    All rows unit length; no gradient reaches `t` or the queue. Scalar, mean over the batch, nats; log(K + 1)
    where the student finds everything equally similar; at least the entropy of `p_t`. Fang et al. 2021,
    equations (3) to (5).
    """
    t_BD, queue_KD = t_BD.detach(), queue_KD.detach()

    def logits(x_BD: Tensor) -> Tensor:
        return torch.cat([(x_BD * t_BD).sum(1, keepdim=True), x_BD @ queue_KD.T], 1)

    target = F.softmax(logits(t_BD) / teacher_temperature, dim=1)
    return F.cross_entropy(logits(s_BD) / temperature, target)


class Seed(Headed):
    name = "seed"
    summary = "SEED: similarities to a queue of teacher embeddings, distilled from one shared view"
    needs = frozenset({"teacher", "teacher_head"})
    views = 1

    class Config(MethodConfig):
        temperature: Annotated[float, Field(gt=0)] = Field(0.2, description="of the student's softmax")
        teacher_temperature: Annotated[float, Field(gt=0)] = Field(
            1e-4, description="of the target's softmax; so cold that the target is all but one-hot"
        )
        queue_size: Annotated[int, Field(ge=2)] = Field(
            65536,
            description="past teacher embeddings to compare with; a multiple of the batch, below the data",
        )

    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "paper": {
            "config": {"temperature": 0.2, "teacher_temperature": 1e-4, "queue_size": 65536},
            **MOCO_V2,
            "optim": {**MOCO_V2["optim"], "warmup_epochs": 5},
        },
        "digits": {
            "config": {"temperature": 0.2, "teacher_temperature": 1e-4, "queue_size": 512},
            **on_digits(),
        },
    }
    config: Config
    teacher: Teacher

    def __init__(
        self, config: MethodConfig, student: Backbone, teacher: Teacher | None, context: Context
    ) -> None:
        super().__init__(config, student, teacher, context)
        with seeded(context.seed):
            self.head = projection_head(student.feature_dim, student.feature_dim, self.teacher.head_dim)
            self.queue = Queue(self.config.queue_size, self.teacher.head_dim)

    @classmethod
    def check(cls, config: MethodConfig, context: Context) -> None:
        assert isinstance(config, cls.Config)
        check_queue(config.queue_size, context)

    def forward(self, batch: Batch) -> Losses:
        (view,) = batch.views
        s, t = unit(self.head(self.student(view))), unit(self.teacher.embed(view))
        self.queue.hold(t)
        config = self.config
        loss = seed_loss(s, t, self.queue.rows, config.temperature, config.teacher_temperature)
        return Losses(loss, {"distillation": loss})

    def after_step(self, progress: float) -> None:
        self.queue.advance()
