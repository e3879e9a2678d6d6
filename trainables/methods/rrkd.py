"""RRKD: the student's similarities to anchors follow the teacher's similarities to the same anchors.

Ramos, Alampay & Abu, "Knowledge distillation with relative representations for image representation
learning"; `Ramos-Ramos/rrkd`.

    V = u(Z) u(A)^T  for student and teacher, each with its own embeddings Z (B, D) of one view, shared, and
                     A (anchors, D) of the same anchor images
    L_D = -mean log((cos(V_s, V_t) + 1) / 2 + 1e-8)   (rows)
    L = lambda_D L_D + lambda_CE CE(classifier(Z_s), labels)         (`distillation_weight`, `ce_weight`)

Embeddings are backbone features, so the widths may differ and no head is needed. Anchors:
`in_batch`        the whole global batch, own sample included; gradient through both sides of u(Z) u(A)^T
`random`          `anchor_count` training images, drawn once by the trial's seed
`per_class`       `anchors_per_class` of each class, drawn once by the trial's seed
`best_per_class`  those of each class that the teacher's classifier (its own, or one fitted) classifies
correctly
                  with the highest probability; this passes all labelled images through the teacher once
`queue`           past embeddings of both networks, the student's as they were then; gradient through Z alone;
                  rows that were never filled are left out. Not in the paper
The middle three stay fixed. The student encodes their plain images in each step, with gradient and in train
mode. It does so in a separate pass, so batch norm sees views and anchors apart. Workers share that pass.
Memory grows with the number of anchors. The teacher's side is computed once. Ids are kept with the images
from ranking to use: the published notebook ranks a shuffled list and takes the images at those places of the
unshuffled one.

The notebook puts dropout and ReLU before MNIST's classifier and never trains the classifier. Here it is one
trained linear layer. `centre` is not in the paper; docs/methods.md says why it helps.

    raykd run search_spaces/rrkd.yaml
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from trainables.core.distributed import gather, gather_with_gradient
from trainables.core.errors import UserError
from trainables.core.numerics import in_float32, unit
from trainables.core.workers import rank, world_size
from trainables.data.encode import TrainingImages
from trainables.methods.base import Batch, Context, Losses, Need, Presets
from trainables.methods.parts.classifier import Labelled, LabelledConfig, soft_cross_entropy
from trainables.methods.parts.queue import Queue, check_queue, queue_need
from trainables.methods.parts.recipes import momentum_sgd, on_digits
from trainables.methods.parts.teacher_classifier import TeacherClassifier

Matching = Literal["cosine_log", "mse", "soft_ce"]
BY_CLASS = ("per_class", "best_per_class")
FIXED = ("random", *BY_CLASS)
_NEVER = -1e6  # a logit whose softmax is 0; with infinity a cross-entropy would be 0 * inf


class RrkdConfig(LabelledConfig):
    """Settings of RRKD."""

    anchors: Literal["in_batch", "random", "per_class", "best_per_class", "queue"] = Field(
        "in_batch",
        description="the batch itself; training images, drawn or those the teacher classifies best; or a "
        "queue of past embeddings",
    )
    distillation_weight: float = Field(
        1.0, ge=0, description="lambda_D, of the loss between relative representations"
    )
    matching: Matching = Field("cosine_log", description="loss between relative representations")
    centre: bool = Field(False, description="take the anchors' mean from both spaces first; not in the paper")
    temperature: float = Field(2.0, gt=0, description="of both softmaxes of `matching: soft_ce`")
    anchor_count: int = Field(128, ge=2, description="images of `anchors: random`")
    anchors_per_class: int = Field(
        13, ge=1, description="images of each class for `anchors: per_class` and `best_per_class`"
    )
    queue_size: int = Field(
        4096,
        ge=2,
        description="embeddings of `anchors: queue`; a multiple of the batch, smaller than the data set",
    )


@in_float32
def relative(
    z_BD: Tensor, anchors_AD: Tensor, centre: bool = False, filled_A: Tensor | None = None
) -> Tensor:
    """`u(Z) u(A)^T`: (B, A) cosine similarities to the anchors. Ramos et al., equation (2).

    With `centre`, the mean of u(A) is first subtracted from all rows of u(Z) and u(A), which are then scaled
    to unit length again. So what all anchors have in common is no similarity. Anchors outside `filled_A`,
    bool, are not in the mean, and their similarity is 0.
    """
    z_BD, anchors_AD = F.normalize(z_BD, dim=1), F.normalize(anchors_AD, dim=1)
    if centre:
        mean_D = anchors_AD.mean(0) if filled_A is None else _share(anchors_AD, filled_A)
        z_BD, anchors_AD = F.normalize(z_BD - mean_D, dim=1), F.normalize(anchors_AD - mean_D, dim=1)
    similarities_BA = z_BD @ anchors_AD.T
    return similarities_BA if filled_A is None else similarities_BA * filled_A


def _share(rows_AD: Tensor, filled_A: Tensor) -> Tensor:
    """The mean of the filled rows, (D,); 0 if there is none."""
    return (rows_AD * filled_A[:, None]).sum(0) / filled_A.sum().clamp(min=1)


@in_float32
def matching_loss(
    s_BA: Tensor,
    t_BA: Tensor,
    matching: Matching,
    temperature: float,
    filled_A: Tensor | None = None,
) -> Tensor:
    """Distance between the student's and the teacher's relative representations. Scalar, mean over the batch.

    `cosine_log`: `-log((cos + 1) / 2 + 1e-8)` of each pair of rows; 0 at a perfect match, to 1e-8; Ramos et
    al., equation (3), as in their code (the equation as printed is not 0 at a match). `mse`: mean square over
    rows and anchors; 0 at a match. `soft_ce`: `-sum softmax(t/T) log softmax(s/T)` over the anchors; at least
    the target's entropy, nats. `temperature` is T. No gradient reaches `t`. Only anchors in `filled_A`, bool,
    are compared; if there is none, the loss is 0.
    """
    t_BA = t_BA.detach()
    if filled_A is None:
        return _matching(s_BA, t_BA, matching, temperature)
    # Computed on the device. Reading the count would make the host wait in every step.
    count, some = filled_A.sum(), filled_A.any()
    if matching == "soft_ce":
        hidden_A = ~filled_A & some
        s_BA, t_BA = (x.masked_fill(hidden_A, _NEVER * temperature) for x in (s_BA, t_BA))
    loss = _matching(s_BA, t_BA, matching, temperature)
    if matching == "mse":
        loss = loss * (len(filled_A) / count.clamp(min=1))
    return torch.where(some, loss, 0 * s_BA.sum())


def _matching(s_BA: Tensor, t_BA: Tensor, matching: Matching, temperature: float) -> Tensor:
    if matching == "mse":
        return F.mse_loss(s_BA, t_BA)
    if matching == "soft_ce":
        return soft_cross_entropy(s_BA, t_BA, temperature)
    cos_B = F.cosine_similarity(s_BA, t_BA, dim=1)
    return -((cos_B + 1) / 2 + 1e-8).log().mean()


def draw_per_class(labels_N: Tensor, ids_N: Tensor, classes: int, count: int, seed: int) -> Tensor:
    """`count` ids of each class, drawn by `seed`, class by class; all ids of a class with fewer."""
    order = torch.randperm(len(ids_N), generator=torch.Generator().manual_seed(seed))
    labels_N, ids_N = labels_N[order], ids_N[order]
    return torch.cat([ids_N[labels_N == c][:count] for c in range(classes)])


def best_per_class(probabilities_NC: Tensor, labels_N: Tensor, ids_N: Tensor, count: int) -> Tensor:
    """Ids of the `count` samples of each class with the highest probability of that class, class by class.

    Row n of every argument is one sample. Samples that are classified correctly come first, the most probable
    first. If they are too few, the others follow in the same order. For equal probabilities the lower id
    comes first, so the order of the rows changes nothing. All ids of a class with fewer samples.
    """
    order = ids_N.argsort()
    probabilities_NC, labels_N, ids_N = probabilities_NC[order], labels_N[order], ids_N[order]
    right = probabilities_NC.argmax(1) == labels_N
    chosen = []
    for c in range(probabilities_NC.shape[1]):
        own = labels_N == c
        surest = probabilities_NC[own, c].argsort(descending=True, stable=True)
        surest = surest[right[own][surest].int().argsort(descending=True, stable=True)]
        chosen.append(ids_N[own][surest[:count]])
    return torch.cat(chosen)


class Rrkd(Labelled[RrkdConfig]):
    """Distillation of relative representations; see the head of this file."""

    name = "rrkd"
    summary = "RRKD: similarities to anchors as the teacher's; five kinds of anchors, with labels or without"
    needs = frozenset({"teacher"})
    views = 1
    presets: ClassVar[Presets] = {
        "paper": {  # CIFAR-10, supervised
            "config": {"anchors": "in_batch", "matching": "cosine_log", "ce_weight": 1.0},
            "optim": momentum_sgd(lr=0.1, weight_decay=0.0, batch_size=128, schedule="constant"),
            "views": {"recipe": "light", "strength": 0.0},  # only flips
            "epochs": 50,
        },
        "digits": {"config": {"centre": True, "queue_size": 512}, **on_digits()},
    }
    small: ClassVar = {"anchor_count": 9, "anchors_per_class": 2}
    anchor_ids: Tensor  # (A,) int64: ids of the fixed anchors among the training images
    anchor_images: Tensor  # (A, 3, S, S): their plain views
    teacher_anchors: Tensor  # (A, D_T): the teacher's embeddings of them

    def build(self) -> None:
        """Make the buffers of fixed anchors, or the queues."""
        super().build()
        config, width = self.config, self.teacher.feature_dim
        if config.anchors in FIXED:
            count, side = _fixed_count(config, self.context), self.context.image_size
            self.register_buffer("anchor_ids", torch.full((count,), -1))
            self.register_buffer("anchor_images", torch.zeros(count, 3, side, side))
            self.register_buffer("teacher_anchors", torch.zeros(count, width))
        elif config.anchors == "queue":
            self.student_queue = Queue(config.queue_size, self.student.feature_dim)
            self.teacher_queue = Queue(config.queue_size, width)

    @classmethod
    def requires(cls, config: RrkdConfig) -> Mapping[str, str]:
        """Labels, if anchors are chosen by them or a classifier is trained; and `needs`."""
        asked = {"labels": f"anchors: {config.anchors}"} if config.anchors in BY_CLASS else {}
        return {**super().requires(config), **asked}

    @classmethod
    def check(cls, config: RrkdConfig, context: Context) -> None:
        """Refuse a run without a loss, and more anchors than the data has."""
        if config.distillation_weight == config.ce_weight == 0:
            raise UserError(
                "config.distillation_weight",
                "no loss is left",
                value=config.distillation_weight,
                expected="distillation_weight or ce_weight above 0",
            )
        if config.anchors == "queue":
            check_queue(config.queue_size, context)
        if config.anchors in BY_CLASS:
            _check_classes(config.anchors_per_class, context.class_images)
        if config.anchors not in FIXED or _fixed_count(config, context) <= context.train_size:
            return
        images = f"the {context.train_size} training images"
        if config.anchors == "random":
            raise UserError(
                "config.anchor_count",
                f"is more than {images}",
                value=config.anchor_count,
                expected=f"at most {context.train_size}",
            )
        raise UserError(
            "config.anchors_per_class",
            f"for each of {context.classes} classes is more than {images}",
            value=config.anchors_per_class,
            expected=f"at most {context.train_size // context.classes}",
        )

    @classmethod
    def memory(cls, config: RrkdConfig, context: Context) -> tuple[Need, ...]:
        """The queues' rows or the fixed anchors' images, and the pass of these through the student."""
        if context.student is None or context.teacher is None:
            return ()
        if config.anchors == "queue":
            dims = (context.student.feature_dim, context.teacher.feature_dim)
            return (queue_need(config.queue_size, *dims),)
        if config.anchors not in FIXED:
            return ()
        count = _fixed_count(config, context)
        kept = 4 * count * (3 * context.image_size**2 + context.teacher.feature_dim)
        field = "config.anchor_count" if config.anchors == "random" else "config.anchors_per_class"
        return (Need(field, f"the {count} anchors' images", kept=kept, images=count),)

    def begin(self, images: TrainingImages) -> None:
        """Choose the fixed anchors and encode them with the teacher."""
        if self.config.anchors not in FIXED:
            return
        ids = self._choose(images)
        self.anchor_ids.copy_(ids)
        self.anchor_images.copy_(images.plain(ids))
        self.teacher_anchors.copy_(images.encode(self.teacher.features, ids))

    def forward(self, batch: Batch) -> Losses:
        """The weighted distance of relative representations, and the labels' part."""
        (view,) = batch.views
        s: Tensor = self.student(view)
        t = self.taught(batch, "features")
        filled = self.teacher_queue.filled if self.config.anchors == "queue" else None
        student_anchors, teacher_anchors = self._anchors(s, t)
        distillation = matching_loss(
            relative(s, student_anchors, self.config.centre, filled),
            relative(t, teacher_anchors, self.config.centre, filled),
            self.config.matching,
            self.config.temperature,
            filled,
        )
        total = self.config.distillation_weight * distillation
        return self.with_labels(total, {"distillation": distillation}, s, batch.labels)

    def after_step(self, fraction: float) -> None:
        """Advance the queues, where there are any."""
        if self.config.anchors == "queue":
            self.student_queue.advance()
            self.teacher_queue.advance()

    def _choose(self, images: TrainingImages) -> Tensor:
        """The ids of the fixed anchors."""
        config, seed = self.config, self.context.seed
        if config.anchors == "random":
            drawn = torch.randperm(len(images.ids), generator=torch.Generator().manual_seed(seed))
            return images.ids[drawn[: config.anchor_count]]
        known = images.labels >= 0
        labels, ids = images.labels[known], images.ids[known]
        if config.anchors == "per_class":
            return draw_per_class(labels, ids, images.classes, config.anchors_per_class, seed)
        classifier = TeacherClassifier(self.teacher, images.classes, "auto").to(self.anchor_images.device)
        classifier.begin(self.teacher, images)
        logits = classifier(images.encode(self.teacher.features, ids))
        return best_per_class(logits.double().softmax(1).cpu(), labels, ids, config.anchors_per_class)

    def _anchors(self, s_BD: Tensor, t_BE: Tensor) -> tuple[Tensor, Tensor]:
        """Student's and teacher's embeddings of the anchors, (A, D) and (A, E)."""
        if self.config.anchors == "in_batch":
            return gather_with_gradient(s_BD), gather(t_BE)
        if self.config.anchors == "queue":
            self.student_queue.hold(unit(s_BD))
            self.teacher_queue.hold(unit(t_BE))
            return self.student_queue.rows, self.teacher_queue.rows
        if (
            len(self.anchor_images) < 2 * world_size()
        ):  # a worker's share would be too small for batch statistics
            return self.student(self.anchor_images), self.teacher_anchors
        # Each worker encodes its share, so all anchors are encoded once for any number of workers.
        shares = self.anchor_images.tensor_split(world_size())
        mine: Tensor = self.student(shares[rank()])
        longest = len(shares[0])
        padded = gather_with_gradient(F.pad(mine, (0, 0, 0, longest - len(mine)))).split(longest)
        own = [rows[: len(share)] for rows, share in zip(padded, shares, strict=True)]
        return torch.cat(own), self.teacher_anchors


def _check_classes(wanted: int, class_images: tuple[int, ...]) -> None:
    """Refuse more anchors of each class than the smallest class has images, if that is known."""
    fewest = min(class_images, default=wanted)
    if fewest < wanted:
        raise UserError(
            "config.anchors_per_class",
            f"class {class_images.index(fewest)} has {fewest} training images",
            value=wanted,
            expected=f"at most {fewest}, or `anchors: random`" if fewest else "`anchors: random`",
        )


def _fixed_count(config: RrkdConfig, context: Context) -> int:
    """Number of the fixed anchors."""
    return config.anchor_count if config.anchors == "random" else config.anchors_per_class * context.classes
