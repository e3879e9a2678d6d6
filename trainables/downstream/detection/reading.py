"""Reads the parts of a task into one list of images, with the same categories for training and validation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from trainables.core.errors import UserError
from trainables.downstream.detection.annotations import Annotations, Picture, in_order
from trainables.downstream.detection.coco import read_coco
from trainables.downstream.detection.voc import read_voc
from trainables.spec.suite_detection import AnnotatedImages, DetectionTask


class DetectionData(NamedTuple):
    """What a detector is trained and scored on."""

    categories: tuple[str, ...]  # of the training part
    train: tuple[Picture, ...]  # those with an object that is trained on
    val: tuple[Picture, ...]


def read_data(task: DetectionTask) -> DetectionData:
    """The images of a task. Raises `UserError` at `train` or `val` for annotations that cannot be used."""
    masks = task.detector == "mask_rcnn"
    train, val = _read(task.train, "train", masks), _read(task.val, "val", masks)
    shown = tuple(picture for picture in train.pictures if picture.trained)
    if not shown:
        raise UserError("train", "has no boxes", value=_names(task.train), expected="annotated images")
    used = in_order(instance.category for picture in val.pictures for instance in picture.instances)
    if not used:
        raise UserError("val", "has no boxes", value=_names(task.val), expected="annotated images")
    for name in used:
        if name not in train.categories:
            problem = "has a category that the training part does not have"
            raise UserError("val", problem, value=name, choices=train.categories)
    return DetectionData(train.categories, shown, val.pictures)


def _read(parts: Sequence[AnnotatedImages], name: str, masks: bool) -> Annotations:
    """All parts. Categories of VOC's parts are sorted together, those of COCO's stay in the order of ids."""
    found = [_part(part, name if len(parts) == 1 else f"{name}.{at}", masks) for at, part in enumerate(parts)]
    named = [category for annotations in found for category in annotations.categories]
    if all(part.root is not None for part in parts):
        named.sort()
    return Annotations(in_order(named), tuple(picture for one in found for picture in one.pictures))


def _part(part: AnnotatedImages, field: str, masks: bool) -> Annotations:
    if part.images is not None and part.annotations is not None:
        return read_coco(part.images, part.annotations, field, masks)
    assert part.root is not None
    if masks:
        problem = "has boxes and no masks: it is in Pascal VOC's format"
        raise UserError(field, problem, value=str(part.root), expected="COCO's format, or faster_rcnn")
    return read_voc(part.root, part.list_file, field)


def _names(parts: Sequence[AnnotatedImages]) -> list[str]:
    return [str(part.annotations or part.list_file) for part in parts]
