"""LPKD, locality preserving: samples that are neighbours for the teacher are pulled together in the student.

Chen et al. 2018, "Learning student networks via feature embedding" (arXiv 1812.06597).

    alpha_ij = exp(-|t_i - t_j|^2 / c^2) for the k samples of the batch nearest to t_i, else 0
    L_LP = mean_i sum_j alpha_ij |s_i - s_j|^2 / k
    L = 1.5 L_LP + CE(labels) + 2 CE(teacher's classes)                                  (one view, shared)

L_LP only pulls: it is 0 if all features are the same, and not at a perfect match. The terms over classes keep
features apart. So a run with neither of them is refused, and all others need labels. Both terms use a linear
classifier on the student's features. The second also needs the teacher's classes: from its own classifier, or
for a teacher without labels from a logistic regression on its features (`teacher_classifier`).

With `scale: 1`, the paper's c, the weights vanish at ordinary feature scales: among 64 standard normal
features in 24 dimensions the weight of a typical neighbour is 3e-13, so the term does nothing. The default
`median` is the median distance of the neighbours in the batch; the weight of a typical neighbour is then
exp(-1). The published sum over the batch is a mean here, so a weight means the same for every batch size. The
published 1.5 is 1.5 B here.

Preset `paper` repeats RRKD's comparison, which states a temperature of .5 for the teacher's classes. Its
notebook (`Ramos-Ramos/rrkd`) stores .5 and computes both softmaxes at 1; so does `fidelity: code`.

    raykd run search_spaces/lpkd.yaml
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from trainables.core.distributed import gather, gather_with_gradient
from trainables.core.errors import UserError
from trainables.core.numerics import at_least_float32, in_float32
from trainables.data.encode import TrainingImages
from trainables.methods.base import Batch, Context, Losses, MethodConfig, Need, Presets
from trainables.methods.parts.classifier import Classified, cross_entropy, soft_cross_entropy
from trainables.methods.parts.recipes import momentum_sgd, on_digits
from trainables.methods.parts.teacher_classifier import Kind, TeacherClassifier


class LpkdConfig(MethodConfig):
    """Settings of LPKD."""

    locality_weight: float = Field(1.5, ge=0, description="of the locality term")
    neighbours: int = Field(
        5, ge=1, description="of each sample, by the teacher's features in the batch; fewer than the batch"
    )
    scale: Literal["median"] | Annotated[float, Field(gt=0)] = Field(
        "median",
        description="c, the distance at which a neighbour's weight is exp(-1): median, of the batch's "
        "neighbours, or a number (the paper's 1.0)",
    )
    ce_weight: float = Field(1.0, ge=0, description="of the labels' cross-entropy")
    soft_ce_weight: float = Field(2.0, ge=0, description="of the cross-entropy on the teacher's classes")
    temperature: float = Field(
        1.0, gt=0, description="of both softmaxes over the teacher's classes; unused by `fidelity: code`"
    )
    fidelity: Literal["paper", "code"] = Field(
        "paper",
        description="code: a temperature of 1, whatever `temperature` says, as in RRKD's notebook",
    )
    teacher_classifier: Kind = "auto"


@in_float32
def locality_loss(s_BD: Tensor, t_BE: Tensor, neighbours: int, scale: float | None = None) -> Tensor:
    """`mean_i sum_j alpha_ij |s_i - s_j|^2 / k`, `alpha_ij = exp(-|t_i - t_j|^2 / c^2)` over i's k nearest.

    Nearest for the teacher, within the batch, without i itself; all others if the batch has at most k. c is
    `scale`, or with None the median distance of those neighbours. Scalar; 0 if all neighbours of each sample
    have its features. No gradient reaches `t`.
    """
    weights_BK, nearest_BK = locality(t_BE.detach(), neighbours, scale)
    squares_BK = (s_BD[:, None] - s_BD[nearest_BK]).square().sum(2)
    return (weights_BK * squares_BK).sum(1).mean() / weights_BK.shape[1]


@torch.no_grad()
def locality(t_BE: Tensor, neighbours: int, scale: float | None = None) -> tuple[Tensor, Tensor]:
    """Weights `alpha` (B, k) and indices (B, k) of each sample's nearest others, by Euclidean distance."""
    # Not by products, which are inexact for small distances between large features.
    distances_BB = torch.cdist(t_BE, t_BE, compute_mode="donot_use_mm_for_euclid_dist").fill_diagonal_(
        torch.inf
    )
    distances_BK, nearest_BK = distances_BB.topk(min(neighbours, len(t_BE) - 1), largest=False)
    # If all neighbours are copies, their median is 0 and the weight 1.
    c = distances_BK.median().clamp(min=1e-12) if scale is None else scale
    return (-(distances_BK / c).square()).exp(), nearest_BK


class Lpkd(Classified[LpkdConfig]):
    """Locality preserving distillation; see the head of this file."""

    name = "lpkd"
    summary = "LPKD: the teacher's neighbours pulled together, beside labels and the teacher's classes"
    needs = frozenset({"teacher", "labels"})
    may_need = frozenset({"teacher_classifier"})
    views = 1
    presets: ClassVar[Presets] = {
        "paper": {  # CIFAR as in RRKD's comparison, because the paper's own schedule is not known to us
            "config": {
                "locality_weight": 192.0,  # 1.5 on a sum over the batch of 128
                "neighbours": 5,
                "scale": 1.0,
                "soft_ce_weight": 2.0,
                "temperature": 0.5,
                "fidelity": "code",
            },
            "optim": momentum_sgd(lr=0.1, weight_decay=0.0, batch_size=128, schedule="constant"),
            "views": {"recipe": "light", "strength": 0.0},  # only flips
            "epochs": 50,
        },
        "digits": {"config": {"scale": "median", "locality_weight": 0.1}, **on_digits(lr=5e-3)},
    }
    small: ClassVar = {"locality_weight": 0.1}
    relational = "the copies of a sample are its nearest neighbours, at distance 0"

    def build(self) -> None:
        """Make the student's classifier, and the teacher's where it is used."""
        super().build()
        if self.config.soft_ce_weight > 0:
            kind = self.config.teacher_classifier
            self.teacher_classifier = TeacherClassifier(self.teacher, self.context.classes, kind)

    @classmethod
    def requires(cls, config: LpkdConfig) -> Mapping[str, str]:
        """The teacher's own classifier, if the settings name it; and `needs`."""
        own = config.teacher_classifier == "own" and config.soft_ce_weight > 0
        asked = {"teacher_classifier": "teacher_classifier: own"} if own else {}
        return {**asked, **super().requires(config)}

    @classmethod
    def check(cls, config: LpkdConfig, context: Context) -> None:
        """Refuse a loss without a term over classes, and more neighbours than a batch has."""
        if config.ce_weight == config.soft_ce_weight == 0:
            raise UserError(
                "config.ce_weight",
                "the locality term only pulls features together: without a term over classes it is least "
                "where they are all the same",
                value=config.ce_weight,
                expected="ce_weight or soft_ce_weight above 0",
            )
        batch = context.batch_size // context.accumulate
        if config.neighbours >= batch:
            kind = "micro-batch" if context.accumulate > 1 else "batch"
            raise UserError(
                "config.neighbours",
                f"a {kind} of {batch} has no more than {batch - 1} others",
                value=config.neighbours,
                expected="fewer neighbours, or a larger optim.batch_size",
            )

    @classmethod
    def memory(cls, config: LpkdConfig, context: Context) -> tuple[Need, ...]:
        """The differences between samples and their neighbours."""
        if context.student is None:
            return ()
        batch = context.batch_size // context.accumulate
        # Differences, their squares, and the gradients of both.
        step = 4 * 4 * batch * min(config.neighbours, batch - 1) * context.student.feature_dim
        return (Need("config.neighbours", "the differences to all neighbours", step=step),)

    def begin(self, images: TrainingImages) -> None:
        """Take or fit the teacher's classifier, where it is used."""
        if self.config.soft_ce_weight > 0:
            self.teacher_classifier.begin(self.teacher, images)

    def forward(self, batch: Batch) -> Losses:
        """The weighted sum of locality, cross-entropy and the teacher's classes."""
        config, (view,) = self.config, batch.views
        s, t = self.student(view), self.taught(batch, "features")
        # Gathered in full precision, so that gradients of other workers are summed in full precision too.
        everyone = gather_with_gradient(s), gather(at_least_float32(t))
        scale = None if config.scale == "median" else config.scale
        terms = {"locality": locality_loss(*everyone, config.neighbours, scale)}
        logits = self.classifier(s)
        total = config.locality_weight * terms["locality"]
        if config.ce_weight > 0:
            terms["cross_entropy"] = cross_entropy(logits, batch.labels)
            total = total + config.ce_weight * terms["cross_entropy"]
        if config.soft_ce_weight > 0:
            temperature = 1.0 if config.fidelity == "code" else config.temperature
            terms["classes"] = soft_cross_entropy(logits, self.teacher_classifier(t), temperature)
            total = total + config.soft_ce_weight * terms["classes"]
        return Losses(total, terms)
