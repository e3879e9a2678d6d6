"""OSS-style: a teacher that learns by MoCo while the student learns SEED from it. No teacher is given.

After the idea of Choi et al. 2021, "Unsupervised representation transfer for small networks: I believe I can
distill on-the-fly" (NeurIPS 2021). No public code was found, and this is NOT that method: it is the following
definition, and no published figure is to be expected of it.

    q = u(h(T(x1)))     k = sg u(h_m(T_m(x2)))     L_T = CE0(q, k; Q, tau_T)            (MoCo-v2, the teacher)
    s = u(g(f(x1)))     t = sg q     p_s = softmax([s.t, s.P] / tau)     p_t = softmax([t.t, t.P] / tau_t)
    L = L_T - sum p_t log p_s                                                           (SEED, the student)

`T` with its head `h` is the teacher, `_m` its moving average; Q holds past keys `k`, P past embeddings `t` of
the teacher. No gradient passes from one to the other, so neither term has a weight. The targets move with the
teacher; the first ones are a random network's. Only the student is probed and saved; a step costs the
teacher's training as well.

Expect on digits (preset `digits`, test_efficientnet at half width, two seeds): 5-shot ridge 85 to 88 in 32
epochs, with the cold target of 1e-4 83 to 87; untrained 68.9, MoCo in 32 epochs 80 to 81.5. In 16 epochs,
cold, 74 to 82: by then the teacher, a test_resnet, is itself at 81 to 85 only. Targets from the teacher's
average instead gave 72.5 and 76.5 there.

    raykd run search_spaces/oss_style.yaml
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar

from pydantic import Field
from torch import nn

from trainables.core.errors import UserError
from trainables.core.numerics import unit
from trainables.methods.base import Batch, Context, Losses, MethodConfig
from trainables.methods.parts.headed import Headed
from trainables.methods.parts.losses import info_nce
from trainables.methods.parts.momentum_encoder import MeanStudent, keys_of
from trainables.methods.parts.queue import Queue, check_queue
from trainables.methods.parts.recipes import MOCO_V2, on_digits
from trainables.methods.seed import seed_loss
from trainables.networks.backbones import Backbone, backbone_facts, build_backbone, seeded
from trainables.networks.heads import projection_head
from trainables.spec.trial import ModelSpec
from trainables.teachers.teacher import Teacher


class OssStyle(Headed):
    name = "oss_style"
    summary = "OSS-style (not the paper's code): a teacher learns by MoCo while the student learns from it"

    class Config(MethodConfig):
        teacher_arch: str = Field(
            "resnet50", description="the teacher: a timm model name, or torchvision/NAME"
        )
        teacher_options: dict[str, Any] = Field(
            {}, description="keyword arguments of the teacher's constructor"
        )
        queue_size: Annotated[int, Field(ge=2)] = Field(
            65536,
            description="past keys, and past embeddings; a multiple of the batch, smaller than the data set",
        )
        momentum: Annotated[float, Field(ge=0, lt=1)] = Field(
            0.999, description="how slowly the teacher's average follows"
        )
        contrast_temperature: Annotated[float, Field(gt=0)] = Field(
            0.2, description="of the softmax that the teacher learns by"
        )
        temperature: Annotated[float, Field(gt=0)] = Field(0.2, description="of the student's softmax")
        teacher_temperature: Annotated[float, Field(gt=0)] = Field(
            1e-4, description="of the target's softmax; so cold that the target is all but one-hot"
        )
        head_dim: Annotated[int, Field(ge=2)] = Field(128, description="dimensions of an embedding")

    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "paper": {  # MoCo-v2's and SEED's: they agree
            "config": {"teacher_arch": "resnet50", "queue_size": 65536, "momentum": 0.999},
            **MOCO_V2,
        },
        "digits": {
            "config": {
                "teacher_arch": "test_resnet",
                "queue_size": 512,
                "momentum": 0.99,
                "teacher_temperature": 0.05,
            },
            **on_digits(epochs=32),
        },
    }
    config: Config

    def __init__(
        self, config: MethodConfig, student: Backbone, teacher: Teacher | None, context: Context
    ) -> None:
        super().__init__(config, student, teacher, context)
        size, dim = self.config.queue_size, self.config.head_dim
        with seeded(context.seed):
            self.head = projection_head(student.feature_dim, student.feature_dim, dim)
            self.queue, self.embeddings = Queue(size, dim), Queue(size, dim)
            # After the rest: a teacher of the student's architecture starts elsewhere than the student.
            backbone = build_backbone(_teacher(self.config), None, "config.teacher")
            width = backbone.feature_dim
            self.growing = nn.Sequential(backbone, projection_head(width, width, dim))
        self.mean = MeanStudent(growing=self.growing)

    @classmethod
    def check(cls, config: MethodConfig, context: Context) -> None:
        assert isinstance(config, cls.Config)
        check_queue(config.queue_size, context)
        try:
            backbone_facts(_teacher(config), context.image_size, "teacher")
        except UserError as error:
            # The backbone's fields are `teacher.arch`, `teacher.options`; here they belong to the method.
            raise error.at(f"config.{error.field.replace('.', '_', 1)}") from None

    def forward(self, batch: Batch) -> Losses:
        view1, view2 = batch.views
        q = unit(self.growing(view1))
        k = keys_of(self.mean, self.mean, view2, self.queue, self.context.seed)
        self.queue.hold(k)
        s, t = unit(self.head(self.student(view1))), q.detach()
        self.embeddings.hold(t)
        config = self.config
        terms = {
            "contrastive": info_nce(q, k, self.queue.rows, config.contrast_temperature),
            "distillation": seed_loss(
                s, t, self.embeddings.rows, config.temperature, config.teacher_temperature
            ),
        }
        return Losses(terms["contrastive"] + terms["distillation"], terms)

    def after_step(self, progress: float) -> None:
        self.mean.follow(self.config.momentum, growing=self.growing)
        self.queue.advance()
        self.embeddings.advance()

    def no_weight_decay(self) -> set[str]:
        backbone = self.growing[0]
        assert isinstance(backbone, Backbone)
        named: set[str] = getattr(backbone.model, "no_weight_decay", set)()
        return super().no_weight_decay() | {f"growing.0.model.{name}" for name in named}


def _teacher(config: OssStyle.Config) -> ModelSpec:
    return ModelSpec(arch=config.teacher_arch, options=config.teacher_options)
