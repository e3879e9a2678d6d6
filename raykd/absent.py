"""A study whose files are not on this machine: planned as far as that goes, or refused with what to type."""

from __future__ import annotations

from pathlib import Path

from trainables.errors import UserError
from trainables.trial import TeacherTraining, TrialSpec

_GIVEN_BY = "--set base.teacher.checkpoint=/where/it/is/"


def refuse_missing_teacher(trial: TrialSpec) -> None:
    """Raise `UserError` for a teacher's file that is not there, with the words that give it."""
    if path := _missing_checkpoint(trial):
        expected = f"{_GIVEN_BY}{path.name}"
        raise UserError("teacher.checkpoint", "no such file", value=str(path), expected=expected)


def without_files(trial: TrialSpec) -> tuple[TrialSpec, list[str]]:
    """The trial as it can be looked at without the user's files, and remarks on what is still to be given.

    A teacher whose file is not there becomes one that is still to be trained: of the same architecture, with
    the head or classifier that the method asks for. Raises `UserError` for data of which only the files can
    tell the size.
    """
    from trainables.data import check_data

    remarks = []
    try:
        check_data(trial.data)
    except UserError as error:
        check_data(trial.data, absent=True)
        said = str(error).removeprefix("data.path: ").replace("Expected ", "To run it: ")
        remarks.append(f"{in_base(said)} Planned with its published size.")
    if path := _missing_checkpoint(trial):
        assert trial.teacher is not None
        remarks.append(
            f"{path} is not there. To run it: {_GIVEN_BY}{path.name}. "
            f"Planned with an untrained {trial.teacher.arch}."
        )
        teacher = trial.teacher.model_copy(update={"checkpoint": None, "train": _stand_in(trial)})
        trial = trial.model_copy(update={"teacher": teacher})
    return trial, remarks


def in_base(text: str) -> str:
    """What a message says to type, as a study takes it."""
    return text.replace("--set data.", "--set base.data.")


def _missing_checkpoint(trial: TrialSpec) -> Path | None:
    """The file that the trial's teacher is to come from, if it is not there."""
    path = trial.teacher.checkpoint if trial.teacher is not None else None
    return path if path is not None and not path.expanduser().is_file() else None


def _stand_in(trial: TrialSpec) -> TeacherTraining:
    from trainables.method import load_method

    method = load_method(trial.method)
    if "teacher_classifier" in method.requires(method.Config(**trial.config)):
        return TeacherTraining(method="supervised", epochs=1)
    batch = 128  # and a queue that fits it, whatever the data are
    return TeacherTraining(method="moco", epochs=1, config={"queue_size": batch}, optim={"batch_size": batch})
