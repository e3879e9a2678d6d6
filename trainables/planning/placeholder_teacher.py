"""A placeholder for a teacher's checkpoint that is not on this machine: random weights of the same shapes.

The cost of a trial and its number of parameters do not depend on the weights, so a plan can be made before
the file is there.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from trainables.methods import load_method
from trainables.networks.sized import network_of
from trainables.planning.check import TrialChecker
from trainables.planning.compute import bare_method
from trainables.spec.trial import TeacherTraining, TrialSpec
from trainables.training.teacher_file import save_teacher, teacher_trial

_BATCH = 128  # and the size of the queue, which must hold a batch


def write_placeholder_teacher(trials: Sequence[TrialSpec], path: Path) -> None:
    """Write a file from which the teacher of all these trials can be read; the first trial has its network.

    It has MoCo's projection head, or a classifier where the methods need that and no head.
    """
    methods = [(load_method(trial.method), trial.config) for trial in trials]
    needs = {need for method, config in methods for need in method.requires(method.Config(**config))}
    train = TeacherTraining(
        method="moco", epochs=1, config={"queue_size": _BATCH}, optim={"batch_size": _BATCH}
    )
    if "teacher_classifier" in needs and "teacher_head" not in needs:
        train = TeacherTraining(method="supervised", epochs=1)
    trial, teacher = trials[0], trials[0].teacher
    assert teacher is not None
    side = teacher.side(trial.data)
    data = trial.data.model_copy(
        update={"image_size": side, "short_side": max(side, trial.data.short_side)}
        if teacher.image_size
        else {}
    )
    own = {"checkpoint": None, "head": None, "train": train, "options": network_of(teacher).options}
    teacher = teacher.model_copy(update=own)
    training = teacher_trial(trial.model_copy(update={"data": data}).with_teachers([teacher]))
    assert training is not None
    save_teacher(bare_method(training, TrialChecker().context), path)
