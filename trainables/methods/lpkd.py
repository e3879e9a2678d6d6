"""LPKD, locality preserving: samples that are neighbours for the teacher move together in the student.

Chen et al. 2018, "Learning student networks via feature embedding" (arXiv 1812.06597).

    alpha_ij = exp(-|t_i - t_j|^2 / c^2) for the k samples of the batch nearest to t_i, else 0
    L_LP = mean_i sum_j alpha_ij |s_i - s_j|^2 / k
    L = 1.5 L_LP + CE(labels) + 2 CE(teacher's classes)                                  (one view, shared)

L_LP only ever pulls: it is 0 where every feature is the same, and not at a perfect match. What keeps features
apart are the terms over classes, so a run with neither is refused, and all others need labels: a linear
classifier on the student's features for both terms, and for the second the teacher's own classifier or, for
one taught without labels, a logistic regression on its features (`teacher_classifier`).

With `scale: 1`, the paper's c, the weights vanish at ordinary feature scales: among 64 standard normal
features in 24 dimensions a typical neighbour's is 3e-13, and the term does nothing. The default, `median`,
takes the median distance of the neighbours in the batch: a typical neighbour then has exp(-1). The published
sum over the batch is a mean here, so that a weight means the same at every batch size: its 1.5 is 1.5 B here.

RRKD's comparison, which preset `paper` repeats, says a temperature of .5 for the teacher's classes. Its
notebook (`Ramos-Ramos/rrkd`) stores .5 and computes both softmaxes at 1, which `fidelity: code` does, too.

Expect on digits (preset `digits`, half-width test_efficientnet, two seeds, teacher a test_resnet of 64 epochs
of MoCo at view strength 1): 5-shot ridge 97.5 to 99, about what the labels alone give (98.5), so that digits
cannot show a gain; untrained 69, the teacher 90. With the published weight of 1.5 the term at `scale: median`
pulls classes together as well: 83 to 86, hence .1 in this preset. At `scale: 1` it is as if it were not there
(97.4, and 97.6 without it).

    raykd run search_spaces/lpkd.yaml
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from trainables.core.distributed import gather, gather_with_gradient
from trainables.core.errors import UserError
from trainables.core.numerics import at_least_float32, in_float32
from trainables.data.encode import TrainingImages
from trainables.methods.base import Batch, Context, Losses, Method, MethodConfig, Need
from trainables.methods.parts.classifier import cross_entropy, linear_classifier, soft_cross_entropy
from trainables.methods.parts.recipes import momentum_sgd, on_digits
from trainables.methods.parts.teacher_classifier import Kind, TeacherClassifier
from trainables.networks.backbones import Backbone
from trainables.teachers.teacher import Teacher


@in_float32
def locality_loss(s_BD: Tensor, t_BE: Tensor, neighbours: int, scale: float | None = None) -> Tensor:
    """`mean_i sum_j alpha_ij |s_i - s_j|^2 / k`, `alpha_ij = exp(-|t_i - t_j|^2 / c^2)` over i's k nearest.

    Nearest by the teacher, within the batch, without i itself; all others where the batch has no more than
    k. c is `scale`, or where that is None the median distance of those neighbours. Scalar; 0 where all of a
    sample's neighbours have its features. No gradient reaches `t`.
    """
    weights_BK, nearest_BK = locality(t_BE.detach(), neighbours, scale)
    squares_BK = (s_BD[:, None] - s_BD[nearest_BK]).square().sum(2)
    return (weights_BK * squares_BK).sum(1).mean() / weights_BK.shape[1]


@torch.no_grad()
def locality(t_BE: Tensor, neighbours: int, scale: float | None = None) -> tuple[Tensor, Tensor]:
    """Weights `alpha` (B, k) and indices (B, k) of each sample's nearest others, by Euclidean distance."""
    # Not by products, which lose the small distances between large features.
    distances_BB = torch.cdist(t_BE, t_BE, compute_mode="donot_use_mm_for_euclid_dist").fill_diagonal_(
        torch.inf
    )
    distances_BK, nearest_BK = distances_BB.topk(min(neighbours, len(t_BE) - 1), largest=False)
    # Copies alone among the neighbours have a median of 0, and a weight of 1.
    c = distances_BK.median().clamp(min=1e-12) if scale is None else scale
    return (-(distances_BK / c).square()).exp(), nearest_BK


class Lpkd(Method):
    name = "lpkd"
    summary = "LPKD: the teacher's neighbours pulled together, beside labels and the teacher's classes"
    needs = frozenset({"teacher", "labels"})
    may_need = frozenset({"teacher_classifier"})
    views = 1

    class Config(MethodConfig):
        locality_weight: Annotated[float, Field(ge=0)] = Field(1.5, description="of the locality term")
        neighbours: Annotated[int, Field(ge=1)] = Field(
            5, description="of each sample, by the teacher's features in the batch; fewer than the batch"
        )
        scale: Literal["median"] | Annotated[float, Field(gt=0)] = Field(
            "median",
            description="c, the distance at which a neighbour's weight is exp(-1): median, of the batch's "
            "neighbours, or a number (the paper's 1.0)",
        )
        ce_weight: Annotated[float, Field(ge=0)] = Field(1.0, description="of the labels' cross-entropy")
        soft_ce_weight: Annotated[float, Field(ge=0)] = Field(
            2.0, description="of the cross-entropy on the teacher's classes"
        )
        temperature: Annotated[float, Field(gt=0)] = Field(
            1.0, description="of both softmaxes over the teacher's classes; unused by `fidelity: code`"
        )
        fidelity: Literal["paper", "code"] = Field(
            "paper",
            description="code: a temperature of 1, whatever `temperature` says, as in RRKD's notebook",
        )
        teacher_classifier: Kind = "auto"

    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "paper": {  # CIFAR as in RRKD's comparison: the paper's own schedule is not known to us
            "config": {
                "locality_weight": 192.0,  # 1.5 on a sum over the batch of 128
                "neighbours": 5,
                "scale": 1.0,
                "soft_ce_weight": 2.0,
                "temperature": 0.5,
                "fidelity": "code",
            },
            "optim": momentum_sgd(lr=0.1, weight_decay=0.0, batch_size=128, schedule="constant"),
            "views": {"recipe": "light", "strength": 0.0},  # flips alone
            "epochs": 50,
        },
        "digits": {
            "config": {"scale": "median", "locality_weight": 0.1},
            **on_digits(lr=5e-3),
        },
    }
    config: Config
    teacher: Teacher

    def __init__(
        self, config: MethodConfig, student: Backbone, teacher: Teacher | None, context: Context
    ) -> None:
        super().__init__(config, student, teacher, context)
        self.classifier = linear_classifier(student, context)
        if self.config.soft_ce_weight > 0:
            self.teacher_classifier = TeacherClassifier(
                self.teacher, context.classes, self.config.teacher_classifier
            )

    @classmethod
    def requires(cls, config: MethodConfig) -> Mapping[str, str]:
        assert isinstance(config, cls.Config)
        own = config.teacher_classifier == "own" and config.soft_ce_weight > 0
        asked = {"teacher_classifier": "teacher_classifier: own"} if own else {}
        return {**asked, **super().requires(config)}

    @classmethod
    def check(cls, config: MethodConfig, context: Context) -> None:
        assert isinstance(config, cls.Config)
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
    def memory(cls, config: MethodConfig, context: Context) -> tuple[Need, ...]:
        assert isinstance(config, cls.Config)
        if context.student is None:
            return ()
        batch = context.batch_size // context.accumulate
        # Differences, their squares, and the gradients of both.
        step = 4 * 4 * batch * min(config.neighbours, batch - 1) * context.student.feature_dim
        return (Need("config.neighbours", "the differences to all neighbours", step=step),)

    def begin(self, images: TrainingImages) -> None:
        if self.config.soft_ce_weight > 0:
            self.teacher_classifier.begin(self.teacher, images)

    def forward(self, batch: Batch) -> Losses:
        config, (view,) = self.config, batch.views
        s, t = self.student(view), self.teacher.features(view)
        # Gathered in full precision, so that gradients of other workers are summed in it, too.
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

    def own_classifier(self) -> nn.Linear:
        return self.classifier
