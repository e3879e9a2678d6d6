"""SEED: the student's similarities to a queue of teacher embeddings follow the teacher's own similarities.

Fang et al. 2021, "SEED: Self-supervised distillation for visual representation" (arXiv 2101.04731);
`jacobswan1/SEED`.

    s = u(g(f(x)))     t = u(g_T(f_T(x)))                                 (one view x, shared)
    p_s = softmax([s.t, s.Q] / T_s)     p_t = softmax([t.t, t.Q] / T_t)     L = -sum p_t log p_s

Q holds past teacher embeddings. There is no momentum encoder. With the paper's T_t of 1e-4 the target is
almost one-hot at t.t, and the loss is InfoNCE with the teacher's embedding as the key. Warmer targets spread
over everything that the teacher finds similar. Similarities and softmaxes are float32 in any precision of the
networks: with that T_t a rounding error of 1e-3 becomes 10 logits.

In preset `paper` the rate rises over 5 epochs, as the paper says. In these epochs the published code goes
from the rate for a batch of 256 to the rate for its actual batch. With 256 it has the full rate from the
start. `warmup_epochs: 0` is the same up to .2 %, by which the cosine falls in 5 epochs of 200.

    raykd run search_spaces/seed.yaml
"""

from __future__ import annotations

from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from trainables.core.numerics import in_float32, unit
from trainables.methods.base import Batch, Context, Losses, MethodConfig, Presets
from trainables.methods.parts.headed import Headed
from trainables.methods.parts.queue import Queue, check_queue
from trainables.methods.parts.recipes import MOCO_V2, on_digits
from trainables.networks.heads import projection_head


class SeedConfig(MethodConfig):
    """Settings of SEED."""

    temperature: float = Field(0.2, gt=0, description="of the student's softmax")
    teacher_temperature: float = Field(
        1e-4, gt=0, description="of the target's softmax; so cold that the target is all but one-hot"
    )
    queue_size: int = Field(
        65536,
        ge=2,
        description="past teacher embeddings to compare with; a multiple of the batch, below the data",
    )


@in_float32
def seed_loss(
    s_BD: Tensor, t_BD: Tensor, queue_KD: Tensor, temperature: float, teacher_temperature: float
) -> Tensor:
    """`-sum p_t log p_s` over the teacher's own embedding and the queue, with a temperature for each side.

    All rows have unit length. No gradient reaches `t` or the queue. Scalar, mean over the batch, nats. It is
    log(K + 1) if the student finds everything equally similar, and at least the entropy of `p_t`. Fang et al.
    2021, equations (3) to (5).
    """
    t_BD, queue_KD = t_BD.detach(), queue_KD.detach()

    def logits(x_BD: Tensor) -> Tensor:
        return torch.cat([(x_BD * t_BD).sum(1, keepdim=True), x_BD @ queue_KD.T], 1)

    target = F.softmax(logits(t_BD) / teacher_temperature, dim=1)
    return F.cross_entropy(logits(s_BD) / temperature, target)


class Seed(Headed[SeedConfig]):
    """SEED; see the head of this file."""

    name = "seed"
    summary = "SEED: similarities to a queue of teacher embeddings, distilled from one shared view"
    needs = frozenset({"teacher"})
    embeds = True
    views = 1
    presets: ClassVar[Presets] = {
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

    def build(self) -> None:
        """Make head and queue."""
        width, dim = self.student.feature_dim, self.teacher.embed_dim
        self.head = projection_head(width, width, dim)
        self.queue = Queue(self.config.queue_size, dim)

    @classmethod
    def check(cls, config: SeedConfig, context: Context) -> None:
        """Refuse a queue that does not fit the data or the batch."""
        check_queue(config.queue_size, context)

    def forward(self, batch: Batch) -> Losses:
        """The distillation of the view's similarities."""
        (view,) = batch.views
        s, t = unit(self.head(self.student(view))), unit(self.taught(batch, "embed"))
        self.queue.hold(t)
        config = self.config
        loss = seed_loss(s, t, self.queue.rows, config.temperature, config.teacher_temperature)
        return Losses(loss, {"distillation": loss})

    def after_step(self, fraction: float) -> None:
        """Advance the queue."""
        self.queue.advance()
