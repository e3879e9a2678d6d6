"""Comparing the patches of two networks: the maps before pooling, on one grid.

A student's map and a teacher's map seldom have the same sides: a ViT-B/16 has 14x14 patches at 224 px, a
ResNet-18 has 7x7. Grid `teacher` resamples the student's map to the teacher's sides, so that every patch of
the teacher is a target as it is. Grid `smaller` resamples the larger map, on either side, to the sides of the
smaller. Then a student with a coarse map is asked for the mean of neighbouring patches, instead of for
details that it has no positions for. Both are bilinear, with the corners of the images in the same place
(`align_corners: false`).
"""

from __future__ import annotations

import dataclasses
import itertools
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from trainables.core.errors import UserError
from trainables.methods.base import Context
from trainables.networks.backbones import Backbone, noise
from trainables.teachers.teacher import Teacher

Grid = Annotated[
    Literal["teacher", "smaller"],
    Field(description="where patches are compared: on the teacher's grid, or on the one with fewer patches"),
]
_STD = 0.02  # of a projection's initial weights, as in DINO's heads


class Projection(nn.Module):
    """The student's features or map to the teacher's width: (B, C) -> (B, D), (B, C, h, w) -> (B, D, h, w).

    One layer is linear. More have hidden layers with LayerNorm and GELU behind each. Weights start from a
    truncated normal of standard deviation .02, biases at 0; without `zero_bias` as torch's do.
    """

    def __init__(
        self, in_dim: int, out_dim: int, layers: int = 1, hidden: int = 0, zero_bias: bool = True
    ) -> None:
        super().__init__()
        widths = [in_dim, *[hidden] * (layers - 1)]
        behind: list[nn.Module] = []
        for before, after in itertools.pairwise(widths):
            behind += [nn.Linear(before, after), nn.LayerNorm(after), nn.GELU()]
        self.layers = nn.Sequential(*behind, nn.Linear(widths[-1], out_dim))
        for module in self.layers:
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=_STD)
                if zero_bias:
                    nn.init.zeros_(module.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Apply the layers to each vector, of a map to each position."""
        if x.ndim == 2:
            vectors: Tensor = self.layers(x)
            return vectors
        projected: Tensor = self.layers(x.permute(0, 2, 3, 1))
        return projected.permute(0, 3, 1, 2)


def resampled(map_BCHW: Tensor, sides: tuple[int, int]) -> Tensor:
    """(B, C, H, W) -> (B, C, h, w), bilinear; the same tensor if it has these sides."""
    if map_BCHW.shape[2:] == sides:
        return map_BCHW
    return F.interpolate(map_BCHW, size=sides, mode="bilinear", align_corners=False)


def on_one_grid(s_BCHW: Tensor, t_BDHW: Tensor, grid: Grid) -> tuple[Tensor, Tensor]:
    """Both maps as patches on one grid: (B, P, C) and (B, P, D). See the head of this file."""
    (height, width), (own_height, own_width) = t_BDHW.shape[2:], s_BCHW.shape[2:]
    sides = (height, width) if grid == "teacher" else (min(height, own_height), min(width, own_width))
    student, teacher = (resampled(x, sides).flatten(2).mT for x in (s_BCHW, t_BDHW))
    return student, teacher


def joined_maps(maps: list[Tensor]) -> Tensor:
    """Maps of several depths, one behind the other in their channels, at the sides of the last one."""
    sides = (maps[-1].shape[2], maps[-1].shape[3])
    return torch.cat([resampled(one, sides) for one in maps], 1)


def freeze_behind_map(student: Backbone, image_size: int) -> None:
    """Set `requires_grad` to False for what lies behind the student's map.

    A loss on the map alone gives it no gradient, and DDP would wait for it.
    """
    for name in student.facts(image_size).after_map:
        student.model.get_parameter(name).requires_grad_(False)


def check_maps(context: Context) -> None:
    """Raise `UserError` for a student or a teacher without a map before pooling."""
    teachers = context.every_teacher
    places = ["teacher"] if len(teachers) < 2 else [f"teacher.{at}" for at in range(len(teachers))]
    for place, facts in [("student", context.student), *zip(places, teachers, strict=False)]:
        if facts is not None and not facts.map_channels:
            arch = facts.spec.arch if facts.spec is not None else ""
            raise UserError(f"{place}.arch", "has no map before pooling to compare patches of", value=arch)


def check_positions(context: Context, teacher_side: int = 0) -> None:
    """Raise `UserError` for a network with a single patch, where an image's patches are compared.

    `teacher_side` is the side of the teacher's map, where `context` does not know the teacher.
    """
    sides = {
        "student": context.student.map_size if context.student is not None else 0,
        "teacher": context.teacher.map_size if context.teacher is not None else teacher_side,
    }
    for network, side in sides.items():
        if side == 1:
            raise UserError(
                "data.image_size",
                f"the {network} has one patch an image at this size, and an image's patches are compared",
                value=context.image_size,
                expected="larger images, or a network that shrinks them less (`options: {stem: small}`)",
            )


def with_student(context: Context, student: Backbone) -> Context:
    """`context`, and the student's shapes, for checks when a method is built."""
    return dataclasses.replace(context, student=student.facts(context.image_size))


def teacher_maps(teacher: Teacher, image_size: int, count: int = 1) -> list[Tensor]:
    """The teacher's last maps of two images of noise, for their shapes."""
    pixels = noise(image_size).to(next(teacher.parameters()).device)
    return teacher.features_and_last_maps(pixels, count)[1]
