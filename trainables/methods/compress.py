"""CompRess: the student ranks past images as the teacher does, each by its own backbone features.

Koohpayegani et al. 2020, "CompRess: Self-supervised learning by compressing representations"
(arXiv 2010.14713); `UMBCvision/CompRess`.

    s = u(f(x))     t = u(f_T(x))                             (one view x, shared; backbone features, no head)
    L = KL(softmax(t.Q_t / T) || softmax(s.Q_s / T))

`2q`: Q_t holds teacher features and Q_s the mean student's, of the same images, so the widths may differ.
`1q`: one queue of teacher features serves both sides. That takes equal widths: s = u(a(f(x))) with a trained
linear layer `a`, as in the published code; there is no mean student.

Expect on digits (preset `digits`, test_efficientnet, two seeds): 5-shot ridge 89.5 from a test_resnet taught
by 64 epochs of MoCo at view strength 1, with `variant: 1q` 88 to 89; untrained 77.5. The loss
falls from 7.3 in the first epoch to 2.3, with `1q` from 3.6 to .5. One run at temperature .1 reached 91.

    raykd run search_spaces/compress.yaml
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from trainables.core.numerics import in_float32, unit
from trainables.methods.base import Batch, Context, Losses, Method, MethodConfig, Need
from trainables.methods.parts.momentum_encoder import MeanStudent
from trainables.methods.parts.queue import Queue, check_queue, queue_need
from trainables.methods.parts.recipes import momentum_sgd, on_digits
from trainables.networks.backbones import Backbone, seeded
from trainables.teachers.teacher import Teacher


@in_float32
def similarity_kl(
    s_BD: Tensor, t_BE: Tensor, student_queue_KD: Tensor, teacher_queue_KE: Tensor, temperature: float
) -> Tensor:
    """`KL(softmax(t.Q_t / T) || softmax(s.Q_s / T))`: row i of both queues is one image.

    All rows unit length; no gradient reaches `t` or the queues. Scalar, mean over the batch, nats; 0 where
    both sides have the same similarities. Koohpayegani et al. 2020, section 3.
    """
    log_p_s = F.log_softmax(s_BD @ student_queue_KD.detach().T / temperature, dim=1)
    log_p_t = F.log_softmax(t_BE.detach() @ teacher_queue_KE.detach().T / temperature, dim=1)
    return F.kl_div(log_p_s, log_p_t, reduction="batchmean", log_target=True)


class Compress(Method):
    name = "compress"
    summary = "CompRess: the teacher's similarities to past images, by backbone features; one queue or two"
    needs = frozenset({"teacher"})
    views = 1

    class Config(MethodConfig):
        variant: Literal["2q", "1q"] = Field(
            "2q", description="a queue for each side, or the teacher's alone with a linear layer to its width"
        )
        temperature: Annotated[float, Field(gt=0)] = Field(0.04, description="of both softmaxes")
        queue_size: Annotated[int, Field(ge=2)] = Field(
            128000,
            description="past features to compare with; a multiple of the batch, smaller than the data set",
        )
        momentum: Annotated[float, Field(ge=0, lt=1)] = Field(
            0.999, description="how slowly the mean student follows; unused by `variant: 1q`"
        )

    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
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
        "digits": {
            "config": {"temperature": 0.04, "queue_size": 512, "momentum": 0.99},
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
            self.teacher_queue = Queue(self.config.queue_size, self.teacher.feature_dim)
            if self.config.variant == "1q":
                self.adapter = nn.Linear(student.feature_dim, self.teacher.feature_dim)
            else:
                self.student_queue = Queue(self.config.queue_size, student.feature_dim)
        if self.config.variant == "2q":
            self.mean = MeanStudent(student=student)

    @classmethod
    def check(cls, config: MethodConfig, context: Context) -> None:
        assert isinstance(config, cls.Config)
        check_queue(config.queue_size, context)

    @classmethod
    def memory(cls, config: MethodConfig, context: Context) -> tuple[Need, ...]:
        assert isinstance(config, cls.Config)
        if context.student is None or context.teacher is None:
            return ()
        dims = [context.teacher.feature_dim]
        if config.variant == "2q":
            dims.append(context.student.feature_dim)
        return (queue_need(config.queue_size, *dims),)

    def forward(self, batch: Batch) -> Losses:
        (view,) = batch.views
        t = unit(self.teacher.features(view))
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

    def after_step(self, progress: float) -> None:
        if self.config.variant == "2q":
            self.mean.follow(self.config.momentum, student=self.student)
            self.student_queue.advance()
        self.teacher_queue.advance()
