"""Annotated images as the detector and its score take them, read from COCO's format or Pascal VOC's."""

from __future__ import annotations

import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

from trainables.core.errors import UserError

Box = tuple[float, float, float, float]  # left, top, right, bottom in pixels
_MOST_BEYOND = 1.0  # pixels by which a box may leave its image: tools round, and COCO's own boxes do


class Instance(NamedTuple):
    """One object of an image."""

    category: str
    box: Box  # within the image
    area: float  # pixels; of the mask, where the annotation says it
    crowd: bool = False  # COCO: a group, which is not trained on
    difficult: bool = False  # VOC: not counted in the score
    segmentation: Any = None  # COCO: polygons or run lengths

    @property
    def empty(self) -> bool:
        """Whether its box has no pixels. A detector cannot be trained on such a box."""
        return self.box[2] <= self.box[0] or self.box[3] <= self.box[1]


class Picture(NamedTuple):
    """An image file and what is in it."""

    file: Path
    width: int
    height: int
    instances: tuple[Instance, ...]

    @property
    def trained(self) -> list[Instance]:
        """The objects that a detector is trained on."""
        return [one for one in self.instances if not one.crowd and not one.empty]


class Annotations(NamedTuple):
    """Images and the names of their categories, in the order of a detector's classes 1, 2, ..."""

    categories: tuple[str, ...]
    pictures: tuple[Picture, ...]


class Place(NamedTuple):
    """Where in a user's files something was read; makes the errors about it."""

    field: str  # of the task, such as `train`
    file: Path
    entry: str = ""  # within the file

    def at(self, entry: str) -> Place:
        """The same file at another entry."""
        return self._replace(entry=entry)

    def error(self, problem: str, **more: Any) -> UserError:
        """A `UserError` that names field, file and entry; `more` are arguments of its constructor."""
        where = f"{self.file}, {self.entry}" if self.entry else str(self.file)
        return UserError(self.field, f"{where}: {problem}", **more)


def box_within(sides: Box, width: int, height: int, place: Place) -> Box:
    """The box, cut at the image. Raises `UserError` for one that is not in it.

    A box may leave the image by one pixel, as rounding does.
    """
    left, top, right, bottom = sides
    if right < left or bottom < top:
        raise place.error("its box ends before it begins", value=list(sides))
    beyond = max(-left, -top, right - width, bottom - height)
    if beyond > _MOST_BEYOND:
        problem = f"its box leaves the image of {width} x {height} pixels by {beyond:g}"
        raise place.error(problem, value=list(sides), expected="a box within its image")
    return max(left, 0.0), max(top, 0.0), min(right, float(width)), min(bottom, float(height))


def number(given: Any) -> float | None:
    """A finite number as it stands in a file; None for anything else."""
    if isinstance(given, bool) or not isinstance(given, int | float) or not math.isfinite(given):
        return None
    return float(given)


def positive(given: Any) -> int | None:
    """A whole number above 0; None for anything else."""
    found = number(given)
    return int(found) if found is not None and found > 0 and found == int(found) else None


def in_order(names: Iterable[str]) -> tuple[str, ...]:
    """Each name once, in the order of first appearance."""
    return tuple(dict.fromkeys(names))
