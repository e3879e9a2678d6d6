"""A teacher that stands in for a checkpoint which is not here: random weights, of the shapes it will have.

What a trial costs and how many numbers it trains depends on no weight, so a plan can be made before the file
is there.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from trainables.methods import load_method
from trainables.planning.check import TrialChecker
from trainables.planning.compute import bare_method
from trainables.spec.trial import TeacherTraining, TrialSpec
from trainables.training.teacher_file import save_teacher, teacher_trial

_BATCH = 128  # and a queue that fits it, whatever the data are


def write_stand_in(trials: Sequence[TrialSpec], path: Path) -> None:
    """A file that the teacher of all these trials could be read from; the first says which network it is.

    It has a projection head as MoCo's, or, where methods ask for a teacher's classifier alone, that.
    """
    methods = [(load_method(trial.method), trial.config) for trial in trials]
    needs = {need for method, config in methods for need in method.requires(method.Config(**config))}
    train = TeacherTraining(
        method="moco", epochs=1, config={"queue_size": _BATCH}, optim={"batch_size": _BATCH}
    )
    if "teacher_classifier" in needs and "teacher_head" not in needs:
        train = TeacherTraining(method="supervised", epochs=1)
    teacher = trials[0].teacher
    assert teacher is not None
    teacher = teacher.model_copy(update={"checkpoint": None, "train": train})
    training = teacher_trial(trials[0].model_copy(update={"teacher": teacher}))
    assert training is not None
    save_teacher(bare_method(training, TrialChecker().context), path)
