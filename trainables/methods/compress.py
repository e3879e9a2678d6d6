"""CompRess: the student finds past images as similar as the teacher does, each by its own backbone features.

Koohpayegani et al. 2020, "CompRess: Self-supervised learning by compressing representations"
(arXiv 2010.14713); `UMBCvision/CompRess`.

    s = u(f(x))     t = u(f_T(x))                             (one view x, shared; backbone features, no head)
    L = KL(softmax(t.Q_t / T) || softmax(s.Q_s / T))

`2q`: Q_t holds teacher features, and Q_s features of the same images by the momentum encoder. The widths may
differ. `1q`: one queue of teacher features serves both sides. This needs equal widths, so s = u(a(f(x))) with
a trained linear layer `a`, as in the published code. There is no momentum encoder.

    raykd run search_spaces/compress.yaml
"""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from trainables.core.numerics import in_float32, unit
from trainables.methods.base import Batch, Context, Losses, Method, MethodConfig, Need, Presets
from trainables.methods.parts.momentum_encoder import MomentumEncoder
from trainables.methods.parts.queue import Queue, check_queue, queue_need
from trainables.methods.parts.recipes import momentum_sgd, on_digits


class CompressConfig(MethodConfig):
    """Settings of CompRess."""

    variant: Literal["2q", "1q"] = Field(
        "2q", description="a queue for each side, or the teacher's alone with a linear layer to its width"
    )
    temperature: float = Field(0.04, gt=0, description="of both softmaxes")
    queue_size: int = Field(
        128000,
        ge=2,
        description="past features to compare with; a multiple of the batch, smaller than the data set",
    )
    momentum: float = Field(
        0.999, ge=0, lt=1, description="how slowly the momentum encoder follows; unused by `variant: 1q`"
    )


@in_float32
def similarity_kl(
    s_BD: Tensor, t_BE: Tensor, student_queue_KD: Tensor, teacher_queue_KE: Tensor, temperature: float
) -> Tensor:
    """`KL(softmax(t.Q_t / T) || softmax(s.Q_s / T))`: row i of both queues is one image.

    All rows have unit length. No gradient reaches `t` or the queues. Scalar, mean over the batch, nats; 0 if
    both sides have the same similarities. Koohpayegani et al. 2020, section 3.
    """
    log_p_s = F.log_softmax(s_BD @ student_queue_KD.detach().T / temperature, dim=1)
    log_p_t = F.log_softmax(t_BE.detach() @ teacher_queue_KE.detach().T / temperature, dim=1)
    return F.kl_div(log_p_s, log_p_t, reduction="batchmean", log_target=True)


class Compress(Method[CompressConfig]):
    """CompRess with two queues or one; see the head of this file."""

    name = "compress"
    summary = "CompRess: the teacher's similarities to past images, by backbone features; one queue or two"
    needs = frozenset({"teacher"})
    views = 1
    presets: ClassVar[Presets] = {
        "paper": {
            "config": {"variant": "2q", "temperature": 0.04, "queue_size": 128000, "momentum": 0.999},
            "optim": momentum_sgd(
                lr=0.01,
                weight_decay=1e-4,
                batch_size=256,
                schedule="multistep",
                decay_epochs=(90, 120),
                decay_rate=0.2,
            ),
            "views": {"recipe": "imagenet"},
            "epochs": 130,
        },
        "digits": {"config": {"temperature": 0.04, "queue_size": 512, "momentum": 0.99}, **on_digits()},
    }

    def build(self) -> None:
        """Make the queues, and the momentum encoder (`2q`) or the linear layer (`1q`)."""
        size, student, teacher = self.config.queue_size, self.student.feature_dim, self.teacher.feature_dim
        self.teacher_queue = Queue(size, teacher)
        if self.config.variant == "1q":
            self.adapter = nn.Linear(student, teacher)
        else:
            self.student_queue = Queue(size, student)
            self.mean = MomentumEncoder(student=self.student)  # called `mean` in checkpoints

    @classmethod
    def check(cls, config: CompressConfig, context: Context) -> None:
        """Refuse a queue that does not fit the data or the batch."""
        check_queue(config.queue_size, context)

    @classmethod
    def memory(cls, config: CompressConfig, context: Context) -> tuple[Need, ...]:
        """The rows of the queues."""
        if context.student is None or context.teacher is None:
            return ()
        dims = [context.teacher.feature_dim]
        if config.variant == "2q":
            dims.append(context.student.feature_dim)
        return (queue_need(config.queue_size, *dims),)

    def forward(self, batch: Batch) -> Losses:
        """The divergence between the similarities of both sides."""
        (view,) = batch.views
        t = unit(self.taught(batch, "features"))
        features: Tensor = self.student(view)
        if self.config.variant == "1q":
            s, queue = unit(self.adapter(features)), self.teacher_queue
        else:
            s, queue = unit(features), self.student_queue
            with torch.no_grad():
                queue.hold(unit(self.mean(view)))
        self.teacher_queue.hold(t)
        loss = similarity_kl(s, t, queue.rows, self.teacher_queue.rows, self.config.temperature)
        return Losses(loss, {"distillation": loss})

    def after_step(self, fraction: float) -> None:
        """Move the momentum encoder and advance the queues."""
        if self.config.variant == "2q":
            self.mean.follow(self.config.momentum, student=self.student)
            self.student_queue.advance()
        self.teacher_queue.advance()
