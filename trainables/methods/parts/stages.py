"""Comparing feature maps inside two networks: which stages are compared, and at what size.

Stages are matched from the deepest backwards, so the last stages of both networks are a pair for any number
of stages. The larger of two maps is averaged down to the side of the smaller.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from trainables.core.errors import UserError
from trainables.methods.base import Batch, Context, Losses
from trainables.methods.parts.classifier import L, Labelled
from trainables.networks.backbones import Backbone
from trainables.teachers.teacher import Teacher

Stages = Sequence[tuple[int, int]]  # channels and side of each map of `with_maps`, shallow to deep


class Pair(NamedTuple):
    """A stage of the student and the stage of the teacher that it is compared with: indices of maps."""

    student: int
    teacher: int
    side: int  # at which they are compared: the side of the smaller map


def pair_stages(student: Stages, teacher: Stages) -> tuple[Pair, ...]:
    """All pairs, shallow to deep. The shallowest stages of the network with more stages have no partner."""
    count = min(len(student), len(teacher))
    indices = zip(
        range(len(student) - count, len(student)), range(len(teacher) - count, len(teacher)), strict=True
    )
    return tuple(Pair(s, t, min(student[s][1], teacher[t][1])) for s, t in indices)


def pairs_with_positions(student: Stages, teacher: Stages, image_size: int) -> tuple[Pair, ...]:
    """The pairs whose maps have more than one position. Raises `UserError` if there is none.

    For losses that see only how a channel or an energy is distributed over positions. A normalised map of 1x1
    is the same for every image.
    """
    pairs = tuple(pair for pair in pair_stages(student, teacher) if pair.side > 1)
    if not pairs:
        raise UserError(
            "data.image_size",
            "at this size every stage that student and teacher could be compared at has a map of 1x1, "
            "which has nothing that could differ",
            value=image_size,
            expected="larger images, or networks that shrink them less",
        )
    return pairs


def at_one_size(s_BCHW: Tensor, t_BCHW: Tensor) -> tuple[Tensor, Tensor]:
    """Both maps at the smaller side of the two, by averaging: (B, C, h, w) and (B, E, h, w)."""
    (height, width), (other_height, other_width) = s_BCHW.shape[2:], t_BCHW.shape[2:]
    size = min(height, other_height), min(width, other_width)
    return F.adaptive_avg_pool2d(s_BCHW, size), F.adaptive_avg_pool2d(t_BCHW, size)


class Staged(Labelled[L]):
    """A method that compares maps of stages, and learns from labels if `ce_weight` is above 0.

    Without labels nothing trains the layers of the student after the deepest stage that is compared. Their
    parameters keep their initial values.
    """

    needs = frozenset({"teacher", "feature_maps"})
    views = 1

    def build(self) -> None:
        """Choose the pairs of stages, and freeze what no loss reaches."""
        super().build()
        size = self.context.image_size
        self.stages = self.student.facts(size).stages, teacher_stages(self.teacher, size)
        self.pairs = self.choose(self.config, *self.stages, size)
        if self.classifier is None:
            freeze_unreached(self.student, [pair.student for pair in self.pairs], size)

    @classmethod
    def choose(cls, config: L, student: Stages, teacher: Stages, image_size: int) -> tuple[Pair, ...]:
        """The pairs of stages to compare: all with positions. Raises `UserError` if there is none."""
        return pairs_with_positions(student, teacher, image_size)

    @classmethod
    def check(cls, config: L, context: Context) -> None:
        """Refuse networks that have no stages to compare."""
        if context.student is not None and context.teacher is not None:
            cls.choose(config, context.student.stages, context.teacher.stages, context.image_size)

    def compared(self, batch: Batch) -> tuple[Tensor, list[tuple[Tensor, Tensor]]]:
        """The student's features (B, D), and for each of `pairs` the student's and the teacher's map."""
        features, student = self.student.with_maps(batch.views[0])
        _, teacher = self.teacher.features_and_maps(self.shown(batch)[0])
        return features, [(student[pair.student], teacher[pair.teacher]) for pair in self.pairs]

    def summed(self, batch: Batch, weight: float, stage_loss: Callable[[Tensor, Tensor], Tensor]) -> Losses:
        """`weight` times the sum of `stage_loss` over the pairs, plus the cross-entropy on labels.

        `stage_2` in the log is the loss at the student's second stage, counted from the image.
        """
        features, maps = self.compared(batch)
        losses = [stage_loss(student, teacher) for student, teacher in maps]
        terms = {f"stage_{pair.student + 1}": loss for pair, loss in zip(self.pairs, losses, strict=True)}
        return self.with_labels(weight * torch.stack(losses).sum(), terms, features, batch.labels)


def teacher_stages(teacher: Teacher, image_size: int) -> Stages:
    """Channels and side of each of the teacher's maps."""
    pixels = torch.zeros(2, 3, image_size, image_size, device=next(teacher.parameters()).device)
    return tuple((one.shape[1], one.shape[2]) for one in teacher.features_and_maps(pixels)[1])


def freeze_unreached(student: Backbone, stages: Iterable[int], image_size: int) -> None:
    """Set `requires_grad` to False for parameters that these stages' maps do not depend on.

    They would never get a gradient, and DDP would wait for it.
    """
    trial = copy.deepcopy(student).eval()  # a copy in eval mode: batch statistics do not change
    pixels = torch.rand(2, 3, image_size, image_size, generator=torch.Generator().manual_seed(0))
    with torch.enable_grad():
        _, maps = trial.with_maps(pixels.to(next(trial.parameters()).device))
        wanted = {name: p for name, p in trial.named_parameters() if p.requires_grad}
        total = torch.stack([maps[stage].sum() for stage in stages]).sum()
        found = torch.autograd.grad(total, list(wanted.values()), allow_unused=True)
    for name, gradient in zip(wanted, found, strict=True):
        if gradient is None:
            student.get_parameter(name).requires_grad_(False)
