"""Networks that are trained before a trial: teachers, their heads, what its student starts from; their files.

training = teacher_trial(trial)                 # None where the trial takes a checkpoint as it is
trainings(trial)                                # all that it needs, in order
teacher_file(training, folder)                  # FOLDER/SIGNATURE.safetensors
save_teacher(method, path, training)            # backbone, head and classifier of a trained method
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from trainables.core.checksums import save_with_checksum
from trainables.methods import load_method
from trainables.methods.base import Method
from trainables.networks.heads import describe_head
from trainables.spec.trial import HEAD_METHOD, StudentSpec, TeacherTraining, TrialSpec
from trainables.training.resolve import BEFORE_SCORE, needs_teacher, resolve


def teacher_trial(trial: TrialSpec) -> TrialSpec | None:
    """The training that makes `trial`'s first teacher; None for none, and for a checkpoint as it is.

    It takes over the trial's data and nothing else, so that no axis of a search makes a teacher of its own.
    The fitting of a head (`head: fit`) is a trial whose teacher is the backbone.
    """
    teacher = trial.teacher
    if teacher is None or (teacher.train is None and teacher.head is None):
        return None
    made = teacher.head or teacher.train
    assert made is not None
    raw: dict[str, Any] = {
        **made.model_dump(exclude={"preset", "start"}, exclude_defaults=True),
        "method": made.method if isinstance(made, TeacherTraining) else HEAD_METHOD,
        "epochs": made.epochs,
        "student": {
            **teacher.model.model_dump(),
            **(made.start if isinstance(made, TeacherTraining) else {}),
        },
        "data": trial.data.model_dump(),
        "probe": {"score": BEFORE_SCORE, "record": (), "every": made.epochs},
    }
    if made.preset is not None:
        raw["preset"] = made.preset
    training = resolve(raw, "teacher.train" if teacher.head is None else "teacher.head")
    if teacher.head is None:
        return training
    return training.with_teachers([teacher.model_copy(update={"head": None, "weight": 1.0})])


def fits_head(trial: TrialSpec) -> bool:
    """Whether `trial` fits a head: no other trial has a teacher that its method does not need."""
    return trial.teacher is not None and not needs_teacher(load_method(trial.method))


def teacher_file(training: TrialSpec, folder: Path) -> Path:
    """Where the network that `training` makes is kept."""
    return folder / f"{training.signature()}.safetensors"


def trainings(trial: TrialSpec, made: Callable[[TrialSpec], bool] = lambda _: False) -> list[TrialSpec]:
    """The trainings that make the networks of `trial`, each after those that it needs itself.

    One that is `made` needs none itself.
    """
    found: dict[str, TrialSpec] = {}
    wanted = [trial.student.train, *map(teacher_trial, trial.of_each_teacher)]
    for training in filter(None, wanted):
        for one in (*(() if made(training) else trainings(training, made)), training):
            found.setdefault(one.signature(), one)
    return list(found.values())


def start_path(student: StudentSpec, folder: Path) -> Path | None:
    """The file that a student starts from: its checkpoint, or what its training leaves in `folder`."""
    return student.checkpoint if student.train is None else teacher_file(student.train, folder)


def teacher_path(trial: TrialSpec, folder: Path) -> Path:
    """The file that holds `trial`'s teacher: its checkpoint, or what its training leaves in `folder`.

    Raises `ValueError` for a trial without a teacher: `resolve` lets no method start that lacks one.
    """
    training = teacher_trial(trial)
    if training is not None:
        return teacher_file(training, folder)
    if trial.teacher is None or trial.teacher.checkpoint is None:
        raise ValueError("the trial has no teacher")
    return trial.teacher.checkpoint


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
