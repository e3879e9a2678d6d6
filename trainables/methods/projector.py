"""Projector distillation: projected, normalised features follow the teacher's under a soft maximum.

Miles and Mikolajczyk 2024, "Understanding the role of the projector in knowledge distillation" (AAAI;
arXiv 2303.11098); `roymiles/Simple-Recipe-Distillation`.

    s = N(W f(x))     t = N(f_T(x))                                    (one view x, shared; backbone features)
    logsum: D = log(mean_b sum_d |s - t|^alpha + eps)
    corr_logsum: D = log(sum_d |c_d - 1|^alpha + eps),   c_d = mean_b s_d t_d, the cross-correlation
    L = weight D + ce_weight CE + kl_weight KL(teacher's classes || student's)

With several teachers (`teacher: [..., ...]`) each has a W of its own, and L is the sum of their D, times
`weight`. A D's gradient grows as its error shrinks, which balances the teachers: their scales do not count.

W is trained and thrown away. N is batch normalisation without scale and shift. The paper's sum is over the
batch too. Here it is a mean: this subtracts log B from D, does not change the gradient, and makes D
independent of the batch size. Because log sum|d|^alpha = alpha log|d|_alpha, the gradient of D grows as the
error shrinks, and the weight is not comparable with that of `mse` or `l1`. A dimension in which the teacher
never varies cannot be matched after batch normalisation, and keeps D from falling.

Presets: `paper` is the published ImageNet setting (ResNet-18 from ResNet-34) with D alone, so without labels.
`supervised` is that setting as published, CE + 2 D + KL. `deit` is the one for DeiT-Ti from RegNetY-160, CE +
D + KL. The code for DeiT has a second token with its own classifier, mixes images and draws RandAugment. Here
one classifier uses the features and views are plain crops, so do not expect its published 77.2. Its D
compares the mean of the normalised patch tokens, not the class token, which a timm model gives as features;
use `student: {options: {global_pool: avg, fc_norm: false}}` to get that mean.

    raykd run search_spaces/projector.yaml
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from trainables.core.distributed import gather_with_gradient
from trainables.core.errors import UserError
from trainables.core.numerics import at_least_float32, in_float32
from trainables.data.encode import TrainingImages
from trainables.methods.base import Batch, Context, Losses, Presets
from trainables.methods.parts.classifier import Labelled, LabelledConfig, class_kl, linear_classifier
from trainables.methods.parts.losses import consistency
from trainables.methods.parts.recipes import momentum_sgd, on_digits
from trainables.methods.parts.teacher_classifier import Kind, TeacherClassifier
from trainables.networks.adapters import FLAT
from trainables.networks.heads import L2Normalise


class ProjectorConfig(LabelledConfig):
    """Settings of projector distillation."""

    projector: Literal["none", "linear", "mlp"] = Field(
        "linear", description="from the student's features to the teacher's width; none: equal widths"
    )
    normalisation: Literal["none", "l2", "bn", "group"] = Field(
        "bn", description="of both sides: rows to length 1, columns over the batch, groups of a row"
    )
    loss: Literal["mse", "l1", "logsum", "corr_logsum"] = Field(
        "logsum", description="distance of the two sides; corr_logsum compares cross-correlations with 1"
    )
    alpha: float = Field(
        4.0, ge=1, description="smoothing of logsum and corr_logsum: the larger, the nearer to the maximum"
    )
    epsilon: float = Field(1e-5, gt=0, description="inside the logarithm, so that a perfect match is finite")
    bn_epsilon: float = Field(
        1e-4,
        ge=0,
        description="added to the variance by `normalisation: bn` and `group`; published are 1e-4 for "
        "ResNets and 0 for DeiT",
    )
    groups: int = Field(16, ge=1, description="of `normalisation: group`; a divisor of the teacher's width")
    weight: float = Field(1.0, gt=0, description="of the distance of features")
    kl_weight: float = Field(
        0.0, ge=0, description="weight of the KL divergence of class probabilities; 0: labels unused"
    )
    temperature: float = Field(1.0, gt=0, description="of that term's softmaxes")
    teacher_classifier: Kind = "auto"


@in_float32
def l1_distance(s_BD: Tensor, t_BD: Tensor) -> Tensor:
    """`|s - t|_1`: sum over dimensions, mean over the batch. Scalar; 0 at a perfect match.

    No gradient reaches `t`.
    """
    return (s_BD - t_BD.detach()).abs().sum(1).mean()


@in_float32
def log_sum(s_BD: Tensor, t_BD: Tensor, alpha: float, epsilon: float) -> Tensor:
    """`log(mean_b sum_d |s - t|^alpha + epsilon)` over all workers' samples, alpha >= 1.

    Scalar, the same on every worker; log(epsilon) at a perfect match, with a gradient of 0 there. No gradient
    reaches `t`. The soft maximum of Miles and Mikolajczyk 2024, less log B.
    """
    errors_B = (s_BD - t_BD.detach()).abs().pow(alpha).sum(1)
    return (gather_with_gradient(errors_B).mean() + epsilon).log()


@in_float32
def correlation_log_sum(s_BD: Tensor, t_BD: Tensor, alpha: float, epsilon: float) -> Tensor:
    """`log(sum_d |c_d - 1|^alpha + epsilon)`, `c_d = mean_b s_bd t_bd` over all workers' samples, alpha >= 1.

    Columns have mean 0 and variance 1 over the batch, so c is each dimension's correlation with the
    teacher's. Scalar, the same on every worker; log(epsilon) at a perfect match. No gradient reaches `t`. The
    published code's form for DeiT.
    """
    own_1D = (s_BD * t_BD.detach()).mean(0, keepdim=True)
    c_D = gather_with_gradient(own_1D).mean(0)
    return ((c_D - 1).abs().pow(alpha).sum() + epsilon).log()


_IMAGENET: Mapping[str, Any] = {
    "optim": momentum_sgd(
        lr=0.1,
        weight_decay=1e-4,
        batch_size=256,
        schedule="multistep",
        decay_epochs=(30, 60, 90),
        decay_rate=0.1,
    ),
    "views": {"recipe": "imagenet"},
    "epochs": 100,
}


class Projector(Labelled[ProjectorConfig]):
    """Projector distillation; see the head of this file."""

    name = "projector"
    summary = "Projected, normalised features follow the teacher's under a soft maximum (log-sum)"
    needs = frozenset({"teacher"})
    may_need = frozenset({"labels", "teacher_classifier"})
    several_teachers = True
    views = 1
    points = ("backbone", "adapter")
    presets: ClassVar[Presets] = {
        "paper": {**_IMAGENET, "config": {"weight": 1.0}},
        "supervised": {**_IMAGENET, "config": {"weight": 2.0, "ce_weight": 1.0, "kl_weight": 1.0}},
        "deit": {
            "config": {
                "loss": "corr_logsum",
                "bn_epsilon": 0.0,
                "weight": 1.0,
                "ce_weight": 1.0,
                "kl_weight": 1.0,
            },
            "optim": {
                "optimizer": "adamw",
                "lr": 2.5e-4,
                "weight_decay": 0.05,
                "batch_size": 256,
                "schedule": "cosine",
                "warmup_epochs": 20,
                "min_lr": 2.5e-6,
                "clip_grad": 15.0,
            },
            "views": {"recipe": "imagenet"},
            "epochs": 300,
        },
        "digits": {"config": {"loss": "logsum", "normalisation": "bn", "alpha": 2.0}, **on_digits()},
    }
    small: ClassVar = {"groups": 4}

    def build(self) -> None:
        """Make projector, normalisation and classifiers. Refuses widths that the settings do not allow."""
        super().build()
        config, student_dim = self.config, self.student.feature_dim
        widths = [teacher.feature_dim for teacher in self.teachers]
        _check(config, student_dim, widths)
        self.projector = _projector(config.projector, student_dim, widths[0])
        self.normalise = _normalisation(config, widths[0])
        self.further_projectors = nn.ModuleList(
            _projector(config.projector, student_dim, width) for width in widths[1:]
        )
        self.further_normalise = nn.ModuleList(_normalisation(config, width) for width in widths[1:])
        self.teacher_classifier: TeacherClassifier | None = None
        if self.config.kl_weight > 0:
            if self.classifier is None:
                self.classifier = linear_classifier(self.student, self.context)
            kind = self.config.teacher_classifier
            self.teacher_classifier = TeacherClassifier(self.teacher, self.context.classes, kind)

    @classmethod
    def requires(cls, config: ProjectorConfig) -> Mapping[str, str]:
        """Labels and the teacher's own classifier, if the settings use them; and `needs`."""
        asked: dict[str, str] = {}
        if config.kl_weight > 0:
            asked["labels"] = f"kl_weight: {config.kl_weight:g}"
            if config.teacher_classifier == "own":
                asked["teacher_classifier"] = "teacher_classifier: own"
        return {**asked, **super().requires(config)}

    @classmethod
    def check(cls, config: ProjectorConfig, context: Context) -> None:
        """Refuse what the two widths, or two settings together, do not allow."""
        if context.student is not None and context.teacher is not None:
            widths = [teacher.feature_dim for teacher in context.every_teacher]
            _check(config, context.student.feature_dim, widths)

    def begin(self, images: TrainingImages) -> None:
        """Take or fit the teacher's classifier, where it is used."""
        if self.teacher_classifier is not None:
            self.teacher_classifier.begin(self.teacher, images)

    def forward(self, batch: Batch) -> Losses:
        """The weighted distance of features, and the terms over classes."""
        (view,) = batch.views
        features = self.student(view)
        answers = [self.taught(batch, "features", teacher=at) for at in range(len(self.teachers))]
        total, terms = self._distilled(features, answers)
        total, terms = self.with_labels(total, terms, features, batch.labels)
        if self.classifier is not None and self.teacher_classifier is not None:
            target = self.teacher_classifier(answers[0])
            terms["class_kl"] = class_kl(self.classifier(features), target, self.config.temperature)
            total = total + self.config.kl_weight * terms["class_kl"]
        return Losses(total, terms)

    def features(self, images: Tensor, point: str) -> Tensor:
        """(B, 3, H, W) -> (B, D) at a probe point; point `adapter` is the first projector."""
        return super().features(images, "projector" if point == "adapter" else point)

    def _distilled(self, features: Tensor, answers: Sequence[Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        """The weighted sum of the distances to all teachers, and the distances."""
        total, terms = features.new_zeros(()), {}
        normalise = [self.normalise, *self.further_normalise]
        for at, projector in enumerate([self.projector, *self.further_projectors]):
            distance = self._distance(normalise[at], projector(features), answers[at])
            total = total + self.teachers[at].weight * self.config.weight * distance
            terms[f"distillation_{at + 1}" if self.further_projectors else "distillation"] = distance
        return total, terms

    def _distance(self, normalise: nn.Module, s_BD: Tensor, t_BD: Tensor) -> Tensor:
        config = self.config
        s_BD, t_BD = (normalise(at_least_float32(x)) for x in (s_BD, t_BD))
        if config.loss == "mse":
            return consistency(s_BD, t_BD)
        if config.loss == "l1":
            return l1_distance(s_BD, t_BD)
        distance = log_sum if config.loss == "logsum" else correlation_log_sum
        return distance(s_BD, t_BD, config.alpha, config.epsilon)


def _projector(kind: str, in_dim: int, out_dim: int) -> nn.Module:
    return nn.Identity() if kind == "none" else FLAT[kind](in_dim, out_dim)


def _normalisation(config: ProjectorConfig, dim: int) -> nn.Module:
    """(B, dim) -> (B, dim), without parameters and running statistics, so one module serves both sides."""
    # torch refuses 0. This number changes no variance, and makes a constant dimension 0 instead of NaN.
    epsilon = max(config.bn_epsilon, torch.finfo(torch.float32).tiny)
    if config.normalisation == "bn":
        return nn.BatchNorm1d(dim, epsilon, affine=False, track_running_stats=False)
    if config.normalisation == "group":
        return nn.GroupNorm(config.groups, dim, epsilon, affine=False)
    return L2Normalise() if config.normalisation == "l2" else nn.Identity()


def _check(config: ProjectorConfig, student_dim: int, teacher_dims: Sequence[int]) -> None:
    """Refuse what the widths, or two settings together, do not allow."""
    if len(teacher_dims) > 1 and config.kl_weight > 0:
        problem = "goes with one teacher: whose classes would the student follow?"
        raise UserError("config.kl_weight", problem, value=config.kl_weight, expected="0, or one teacher")
    for teacher_dim in teacher_dims:
        _check_width(config, student_dim, teacher_dim)


def _check_width(config: ProjectorConfig, student_dim: int, teacher_dim: int) -> None:
    """Refuse what the two widths, or two settings together, do not allow."""
    if config.projector == "none" and student_dim != teacher_dim:
        raise UserError(
            "config.projector",
            f"the student's features have {student_dim} dimensions and the teacher's {teacher_dim}: they "
            "cannot be compared without a projector",
            value="none",
            expected="'linear' or 'mlp'",
        )
    if config.loss == "corr_logsum" and config.normalisation != "bn":
        raise UserError(
            "config.normalisation",
            "a cross-correlation is one only between features normalised over the batch, for "
            "`loss: corr_logsum`",
            value=config.normalisation,
            expected="'bn', or another loss",
        )
    if config.normalisation == "group" and (teacher_dim % config.groups or config.groups == teacher_dim):
        near = [n for n in range(1, teacher_dim) if teacher_dim % n == 0]
        nearest = min(near, key=lambda n: abs(n - config.groups))
        raise UserError(
            "config.groups",
            f"the teacher's {teacher_dim} dimensions cannot be parted into so many groups of two or more",
            value=config.groups,
            expected=f"a divisor of {teacher_dim} below it, such as {nearest}",
        )
