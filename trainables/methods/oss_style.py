"""OSS-style: a teacher learns by MoCo while the student learns from it by SEED. No teacher is given.

After the idea of Choi et al. 2021, "Unsupervised representation transfer for small networks: I believe I can
distill on-the-fly" (NeurIPS 2021). No public code was found, and this is NOT that method. It is the following
definition; do not expect a published figure of it.

    q = u(h(T(x1)))     k = sg u(h_m(T_m(x2)))     L_T = CE0(q, k; Q, tau_T)            (MoCo-v2, the teacher)
    s = u(g(f(x1)))     t = sg q     p_s = softmax([s.t, s.P] / tau)     p_t = softmax([t.t, t.P] / tau_t)
    L = L_T - sum p_t log p_s                                                           (SEED, the student)

`T` with its head `h` is the teacher, `_m` its moving average. Q holds past keys `k`, P past embeddings `t` of
the teacher. No gradient passes between the two terms, so neither has a weight. The targets change as the
teacher learns; the first ones are those of a random network. Only the student is probed and saved. The cost
of a step includes the training of the teacher.

    raykd run search_spaces/oss_style.yaml
"""

from __future__ import annotations

from typing import Any, ClassVar

from pydantic import Field
from torch import nn

from trainables.core.errors import UserError
from trainables.core.numerics import unit
from trainables.methods.base import Batch, Context, Losses, MethodConfig, Presets
from trainables.methods.parts.headed import Headed
from trainables.methods.parts.losses import info_nce
from trainables.methods.parts.momentum_encoder import MomentumEncoder, keys_of
from trainables.methods.parts.queue import Queue, check_queue
from trainables.methods.parts.recipes import MOCO_V2, on_digits
from trainables.methods.seed import seed_loss
from trainables.networks.backbones import Backbone, backbone_facts, build_backbone
from trainables.networks.heads import projection_head
from trainables.spec.trial import ModelSpec


class OssStyleConfig(MethodConfig):
    """Settings of the OSS-style method."""

    teacher_arch: str = Field("resnet50", description="the teacher: a timm model name, or torchvision/NAME")
    teacher_options: dict[str, Any] = Field({}, description="keyword arguments of the teacher's constructor")
    queue_size: int = Field(
        65536,
        ge=2,
        description="past keys, and past embeddings; a multiple of the batch, smaller than the data set",
    )
    momentum: float = Field(0.999, ge=0, lt=1, description="how slowly the teacher's average follows")
    contrast_temperature: float = Field(0.2, gt=0, description="of the softmax that the teacher learns by")
    temperature: float = Field(0.2, gt=0, description="of the student's softmax")
    teacher_temperature: float = Field(
        1e-4, gt=0, description="of the target's softmax; so cold that the target is all but one-hot"
    )
    head_dim: int = Field(128, ge=2, description="dimensions of an embedding")

    @property
    def teacher(self) -> ModelSpec:
        """The architecture of the teacher."""
        return ModelSpec(arch=self.teacher_arch, options=self.teacher_options)


class OssStyle(Headed[OssStyleConfig]):
    """A teacher by MoCo and a student by SEED, trained together; see the head of this file."""

    name = "oss_style"
    summary = "OSS-style (not the paper's code): a teacher learns by MoCo while the student learns from it"
    presets: ClassVar[Presets] = {
        "paper": {  # of MoCo-v2 and SEED, which agree
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
    small: ClassVar = {"teacher_arch": "test_resnet", "teacher_options": {"channels": [8, 12, 16, 24]}}

    def build(self) -> None:
        """Make the student's head, both queues, the teacher and its momentum encoder."""
        size, dim = self.config.queue_size, self.config.head_dim
        self.head = projection_head(self.student.feature_dim, self.student.feature_dim, dim)
        self.queue, self.embeddings = Queue(size, dim), Queue(size, dim)
        # Built last, so a teacher of the student's architecture gets other weights than the student.
        backbone = build_backbone(self.config.teacher, None, "config.teacher")
        width = backbone.feature_dim
        self.growing = nn.Sequential(backbone, projection_head(width, width, dim))  # the teacher
        self.mean = MomentumEncoder(growing=self.growing)  # called `mean` in checkpoints

    @classmethod
    def check(cls, config: OssStyleConfig, context: Context) -> None:
        """Refuse a queue that does not fit, and a teacher that does not exist or fit the images."""
        check_queue(config.queue_size, context)
        try:
            backbone_facts(config.teacher, context.image_size, "teacher")
        except UserError as error:
            # The backbone's fields are `teacher.arch`, `teacher.options`; here they belong to the method.
            raise error.at(f"config.{error.field.replace('.', '_', 1)}") from None

    def forward(self, batch: Batch) -> Losses:
        """The teacher's contrastive term and the student's distillation."""
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

    def after_step(self, fraction: float) -> None:
        """Move the momentum encoder and advance both queues."""
        self.mean.follow(self.config.momentum, growing=self.growing)
        self.queue.advance()
        self.embeddings.advance()

    def no_weight_decay(self) -> set[str]:
        """Those of the student and of the teacher."""
        backbone = self.growing[0]
        assert isinstance(backbone, Backbone)
        named: set[str] = getattr(backbone.model, "no_weight_decay", set)()
        return super().no_weight_decay() | {f"growing.0.model.{name}" for name in named}
