"""RETRO: the student reuses the teacher's frozen projection head through a learned adapter.

"Reusing teacher projection head for efficient embedding distillation on lightweight models via
self-supervised learning" (arXiv 2405.15311); `beandkay/Reused-Teacher-Projector`.

    q = u(g_T(a(f(x))))     t = u(g_T(f_T(x)))     k from the momentum encoder (x and x': the two views)
    L_dis = |q - t|^2 + |q' - t'|^2                 L = L_dis + gamma * 1/2 [CE0(q, k') + CE0(q', k)]

Student f and adapter a are trained. L_dis has the weight `consistency_weight`, 1 in the paper. The published
code (`fidelity: code`) differs from the paper. It has no gamma and no second contrastive term. Student and
momentum encoder share one adapter. By mistake, its second consistency term compares the student's view 1 with
the teacher's view 2. It sums L_dis over the batch of one GPU. Here L_dis is a mean, so no result depends on
the number of workers. So the published weight of 1 is a `consistency_weight` of 32, the images on each of 8
GPUs.

Preset `code` is that training. Its teacher is in train mode: add `teacher: {batch_norm: batch}`. It clips the
gradient of a MobileNet-v3: add `optim: {clip_grad: 5}`. `trainables/networks/adapters.py` says which adapter
was published for which student.

    raykd run search_spaces/quickstart.yaml
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Mapping
from typing import ClassVar, Literal, cast

from pydantic import Field
from torch import Tensor, nn

from trainables.core.errors import UserError
from trainables.core.numerics import unit
from trainables.methods.base import Batch, Context, Losses, Method, Presets
from trainables.methods.parts.contrast import ContrastConfig
from trainables.methods.parts.losses import consistency, info_nce
from trainables.methods.parts.momentum_encoder import MomentumEncoder, keys_of
from trainables.methods.parts.queue import Queue, check_queue
from trainables.methods.parts.recipes import MOCO_V2, on_digits
from trainables.networks.adapters import NEIGHBOURHOOD, SPATIAL, Activation, Adapter, build_adapter
from trainables.networks.backbones import Backbone, BackboneFacts
from trainables.networks.heads import build_head, describe_head


class RetroConfig(ContrastConfig):
    """Settings of RETRO."""

    adapter: Literal["linear", "mlp", "conv1x1", "conv1x1_bn_act", "bottleneck", "mbconv"] = Field(
        "linear",
        description="what makes the student's features fit the teacher's head; published: bottleneck for "
        "ResNets of 50 layers and more, and mbconv for the other students",
    )
    mbconv_activation: Activation = Field(
        "published",
        description="of `adapter: mbconv`: published is hard mish for a MobileNet-v3 and SiLU for other "
        "students; unused by other adapters",
    )
    consistency_weight: float = Field(
        1.0,
        ge=0,
        description="of both consistency terms; the published code's 1 is 32 here: it sums over the 32 "
        "images of a GPU",
    )
    gamma: float = Field(
        0.1,
        ge=0,
        description="weight of the contrastive term; the paper gives none; unused by `fidelity: code`",
    )
    momentum: float = Field(
        0.999,
        ge=0,
        lt=1,
        description="how slowly the momentum encoder follows; unused by `mean_student: false`",
    )
    symmetric: bool = Field(
        True, description="contrast both views with the other's key; unused by `fidelity: code`"
    )
    # Its name is in sweeps and search spaces; elsewhere the mean student is called the momentum encoder.
    mean_student: bool = Field(
        True, description="keys from a momentum encoder (a mean student), or from the student itself"
    )
    head: Literal["frozen", "tuned", "fresh"] = Field(
        "frozen", description="the teacher's head as it is, a copy that is trained on, or a new one"
    )
    fidelity: Literal["paper", "code"] = Field(
        "paper", description="where paper and published code differ, which to follow"
    )


class Retro(Method[RetroConfig]):
    """RETRO; see the head of this file."""

    name = "retro"
    summary = "RETRO: the teacher's projection head reused through an adapter, plus contrast with a queue"
    needs = frozenset({"teacher", "teacher_head"})
    points = ("backbone", "adapter", "head")
    presets: ClassVar[Presets] = {
        "paper": {  # the paper's loss under the schedule of the published code, MoCo-v2's
            "config": {"queue_size": 65536, "momentum": 0.999, "temperature": 0.2},
            **MOCO_V2,
        },
        "code": {  # the published training, for students other than ResNet-50, -101 and -152
            "config": {
                "fidelity": "code",
                "consistency_weight": 32.0,
                "adapter": "mbconv",
                "queue_size": 65536,
                "momentum": 0.999,
                "temperature": 0.2,
            },
            **MOCO_V2,
        },
        "digits": {
            "config": {"queue_size": 512, "momentum": 0.99, "temperature": 0.2, "gamma": 0.1},
            **on_digits(),
        },
    }

    def build(self) -> None:
        """Make adapter, head, queue and momentum encoder; refuse an adapter that does not fit the student."""
        config, student, context = self.config, self.student, self.context
        if config.adapter in SPATIAL:
            context = dataclasses.replace(context, student=student.facts(context.image_size))
            self.check(config, context)
        teacher_head = cast(nn.Module, self.teacher.head)
        self.adapter = build_adapter(
            config.adapter, student, self.teacher.feature_dim, config.mbconv_activation
        )
        if config.head == "tuned":
            self.head = copy.deepcopy(teacher_head).requires_grad_(True)
        elif config.head == "fresh":
            self.head = build_head(describe_head(teacher_head))
        self.queue = Queue(config.queue_size, self.teacher.head_dim)
        if self.adapter.spatial and context.student is not None:
            # A norm after pooling: the adapter does not use it, so its scales and shifts get no gradient.
            for name in context.student.after_map:
                student.model.get_parameter(name).requires_grad_(False)
        if config.mean_student:
            self.mean = MomentumEncoder(**self._followed())  # called `mean` in checkpoints

    @classmethod
    def check(cls, config: RetroConfig, context: Context) -> None:
        """Refuse a queue that does not fit, and an adapter that the student's feature map does not allow."""
        check_queue(config.queue_size, context)
        if context.student is not None:
            _check_adapter(config.adapter, context.student, context.image_size)

    @classmethod
    def same(cls, context: Context) -> Mapping[str, tuple[tuple[str, ...], ...]]:
        """`linear` and `conv1x1`, if features are the mean of the map: the mean of linear maps is linear."""
        pooled_alike = context.student is not None and context.student.mean_pool
        return {"adapter": (("linear", "conv1x1"),)} if pooled_alike else {}

    def forward(self, batch: Batch) -> Losses:
        """The weighted sum of distillation and contrastive term, by the paper or by the published code."""
        if self.config.fidelity == "code":
            distillation, contrastive = self._code(batch)
            gamma = 1.0
        else:
            distillation, contrastive = self._paper(batch)
            gamma = self.config.gamma
        total = self.config.consistency_weight * distillation + gamma * contrastive
        return Losses(total, {"distillation": distillation, "contrastive": contrastive})

    def _paper(self, batch: Batch) -> tuple[Tensor, Tensor]:
        view1, view2 = batch.views
        q1, q2 = self._query(view1), self._query(view2)
        distillation = consistency(q1, self._target(batch, 0)) + consistency(q2, self._target(batch, 1))
        temperature, rows = self.config.temperature, self.queue.rows
        k2 = self._keys(view2) if self.config.mean_student else q2.detach()
        contrastive = info_nce(q1, k2, rows, temperature)
        if self.config.symmetric:
            k1 = self._keys(view1) if self.config.mean_student else q1.detach()
            contrastive = (contrastive + info_nce(q2, k1, rows, temperature)) / 2
        self.queue.hold(k2)
        return distillation, contrastive

    def _code(self, batch: Batch) -> tuple[Tensor, Tensor]:
        view1, view2 = batch.views
        q1 = self._query(view1)
        distillation = consistency(q1, self._target(batch, 0)) + consistency(q1, self._target(batch, 1))
        k2 = self._keys(view2)
        contrastive = info_nce(q1, k2, self.queue.rows, self.config.temperature)
        self.queue.hold(k2)
        return distillation, contrastive

    def after_step(self, fraction: float) -> None:
        """Move the momentum encoder, where there is one, and advance the queue."""
        if self.config.mean_student:
            self.mean.follow(self.config.momentum, **self._followed())
        self.queue.advance()

    def features(self, images: Tensor, point: str) -> Tensor:
        """(B, 3, H, W) -> (B, D): the student's features, behind the adapter, or behind the head."""
        if point == "backbone":
            features: Tensor = self.student(images)
            return features
        adapted: Tensor = self.adapter(self.student, images)
        return adapted if point == "adapter" else self._project(adapted)

    def _query(self, images: Tensor) -> Tensor:
        return unit(self._project(self.adapter(self.student, images)))

    def _keys(self, images: Tensor) -> Tensor:
        """Keys of the momentum encoder, or of the student if there is none. Without gradient."""
        return keys_of(self._key_embedding, self, images, self.queue, self.context.seed)

    def _target(self, batch: Batch, view: int) -> Tensor:
        return unit(self.taught(batch, "embed", view))

    def _project(self, adapted: Tensor) -> Tensor:
        """Through the head of the student's side."""
        head = self.teacher.head if self.config.head == "frozen" else self.head
        embedding: Tensor = cast(nn.Module, head)(adapted)
        return embedding

    def _key_embedding(self, images: Tensor) -> Tensor:
        if not self.config.mean_student:
            return self._project(self.adapter(self.student, images))
        parts = self.mean.parts
        adapter = cast(Adapter, parts["adapter"]) if "adapter" in parts else self.adapter
        adapted = adapter(cast(Backbone, parts["student"]), images)
        embedding: Tensor = parts["head"](adapted) if "head" in parts else self._project(adapted)
        return embedding

    def _followed(self) -> dict[str, nn.Module]:
        """The modules that the momentum encoder follows."""
        modules: dict[str, nn.Module] = {"student": self.student}
        if self.config.fidelity == "paper":
            modules["adapter"] = self.adapter
        if self.config.head != "frozen":
            modules["head"] = self.head
        return modules


def _check_adapter(kind: str, student: BackboneFacts, image_size: int) -> None:
    """Refuse an adapter on a feature map that does not exist, is too small, or leaves weights untrained."""
    flat = "'linear' or 'mlp'"
    if kind not in SPATIAL:
        return
    if student.map_size == 0:
        raise UserError(
            "config.adapter",
            "sits on the feature map, and this student has none",
            value=kind,
            expected=flat,
        )
    if kind in NEIGHBOURHOOD and student.map_size == 1:
        raise UserError(
            "config.adapter",
            f"has a 3x3 convolution, and at {image_size} px the student's feature map is 1x1: it would see "
            "only padding",
            value=kind,
            expected=f"{flat} or 'conv1x1_bn_act', or a larger map (data.image_size, or a student's "
            "option such as output_stride)",
        )
    if student.weights_after_map:
        raise UserError(
            "config.adapter",
            "sits on the feature map, and this student has weights after it that would stay untrained "
            f"({student.weights_after_map[0]})",
            value=kind,
            expected=flat,
        )
