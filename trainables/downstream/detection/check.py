"""What is refused before a detector costs machine time."""

from __future__ import annotations

import copy
import functools
from pathlib import Path

from trainables.downstream.detection.detectors import build_detector
from trainables.downstream.detection.masks import check_pycocotools
from trainables.downstream.detection.reading import read_data
from trainables.downstream.detection.training import check_share, steps_of
from trainables.downstream.subject import Who
from trainables.networks.backbones import Backbone, build_backbone
from trainables.spec.suite_detection import DetectionTask, changed
from trainables.spec.trial import ModelSpec, TrialSpec


def check_detection(task: DetectionTask, trial: TrialSpec, workers: int = 1, who: Who = "student") -> None:
    """Raise `UserError` for what cannot work: a missing package, annotations, or the network of a trial.

    All annotations are read, and every image file is looked for; no image is decoded. What was found right
    once is not read again while the files stay as they are.
    """
    check_pycocotools()
    check_share(task, workers)
    _check_data(task, _stamps(task))
    if who == "teacher":
        assert trial.teacher is not None
        _check_network(task, trial.teacher.model, "teacher")
    else:
        _check_network(task, trial.student.model, "student")


def detection_cost(task: DetectionTask, trial: TrialSpec) -> tuple[int, int]:
    """(images that are scored, images that are trained on), each pass counted.

    Raises `UserError` for annotations that cannot be used.
    """
    train, val = _check_data(task, _stamps(task))
    return val, task.batch * steps_of(task, train)


@functools.lru_cache(maxsize=64)
def _check_data(task: DetectionTask, stamps: tuple[int, ...]) -> tuple[int, int]:
    """The numbers of images in training and validation part."""
    data = read_data(task)
    return len(data.train), len(data.val)


@functools.lru_cache(maxsize=64)
def _check_network(task: DetectionTask, spec: ModelSpec, field: str) -> None:
    check_network(task, build_backbone(spec, 0, field))


def check_network(task: DetectionTask, network: Backbone) -> None:
    """Raise `UserError` for a network that cannot be the backbone of the task's detector."""
    build_detector(task, copy.deepcopy(network), 1)


def _stamps(task: DetectionTask) -> tuple[int, ...]:
    """When the files of the annotations were changed."""
    files: list[Path | None] = []
    for part in (*task.train, *task.val):
        if part.root is None:
            files += [part.annotations, part.images]
        else:
            files += [part.list_file, part.root / "Annotations", part.root / "JPEGImages"]
    return tuple(changed(file) for file in files if file is not None)
