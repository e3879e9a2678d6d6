"""Networks that are trained before a trial: its teacher, what its student starts from, and their files.

training = teacher_trial(trial)                 # None where the trial takes a checkpoint
trainings(trial)                                # all that it needs, in order
teacher_file(training, folder)                  # FOLDER/SIGNATURE.safetensors
save_teacher(method, path, training)            # backbone, head and classifier of a trained method
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from trainables.core.checksums import save_with_checksum
from trainables.methods.base import Method
from trainables.networks.heads import describe_head
from trainables.spec.trial import StudentSpec, TrialSpec
from trainables.training.resolve import BEFORE_SCORE, resolve


def teacher_trial(trial: TrialSpec) -> TrialSpec | None:
    """The training that makes `trial`'s teacher; None where it has none or takes a checkpoint.

    It takes over the trial's data and nothing else, so that no axis of a search makes a teacher of its own.
    """
    if trial.teacher is None or trial.teacher.train is None:
        return None
    train = trial.teacher.train
    raw: dict[str, Any] = {
        **train.model_dump(exclude={"preset", "start"}, exclude_defaults=True),
        "method": train.method,
        "student": {**trial.teacher.model.model_dump(), **train.start},
        "data": trial.data.model_dump(),
        "probe": {"score": BEFORE_SCORE, "record": (), "every": train.epochs},
    }
    if train.preset is not None:
        raw["preset"] = train.preset
    return resolve(raw, "teacher.train")


def teacher_file(training: TrialSpec, folder: Path) -> Path:
    """Where the network that `training` makes is kept."""
    return folder / f"{training.signature()}.safetensors"


def trainings(trial: TrialSpec) -> list[TrialSpec]:
    """The trainings that make the networks of `trial`, each after those that it needs itself."""
    found: dict[str, TrialSpec] = {}
    for training in filter(None, (trial.student.train, teacher_trial(trial))):
        for one in (*trainings(training), training):
            found.setdefault(one.signature(), one)
    return list(found.values())


def start_path(student: StudentSpec, folder: Path) -> Path | None:
    """The file that a student starts from: its checkpoint, or what its training leaves in `folder`."""
    return student.checkpoint if student.train is None else teacher_file(student.train, folder)


def teacher_path(trial: TrialSpec, folder: Path) -> Path:
    """The file that holds `trial`'s teacher: its checkpoint, or what its training leaves in `folder`.

    Raises `ValueError` for a trial without a teacher: `resolve` lets no method start that lacks one.
    """
    if trial.teacher is not None and trial.teacher.checkpoint is not None:
        return trial.teacher.checkpoint
    training = teacher_trial(trial)
    if training is None:
        raise ValueError("the trial has no teacher")
    return teacher_file(training, folder)


def save_teacher(method: Method, path: Path, training: TrialSpec | None = None) -> None:
    """Write a trained method's student as a teacher, with its own head and classifier where it has them.

    `training` goes into the file, for whoever wonders where it came from.
    """
    tensors = {f"backbone.{name}": value for name, value in method.student.model.state_dict().items()}
    metadata = {
        "format": "raykd",
        "method": method.name,
        **method.student.written,
    }
    if training is not None:
        metadata["trial"] = training.model_dump_json()
    head = method.own_head()
    if head is not None:
        tensors.update({f"head.{name}": value for name, value in head.state_dict().items()})
        metadata["head"] = json.dumps(describe_head(head))
    classifier = method.own_classifier()
    if classifier is not None:
        tensors.update({f"classifier.{name}": value for name, value in classifier.state_dict().items()})
    save_with_checksum(
        {name: value.detach().cpu().contiguous().clone() for name, value in tensors.items()}, path, metadata
    )
