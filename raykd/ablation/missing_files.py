"""A study whose files are not on this machine: `--plan` works without them, a run is refused."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from raykd.ablation.arm_trials import in_base, trial_of
from raykd.spec.study import StudySpec
from trainables.core.errors import UserError
from trainables.spec.trial import TrialSpec, WeightsSpec

_GIVEN_BY = "--set base.{}.checkpoint=/where/it/is/"


def refuse_missing_files(trial: TrialSpec) -> None:
    """Raise `UserError`, with the option to type, where the file of a teacher or the student is missing."""
    for network in (*trial.teachers, trial.student):
        if path := _missing_checkpoint(network):
            expected = f"{_GIVEN_BY.format(network.section)}{path.name}"
            raise UserError(
                f"{network.section}.checkpoint", "no such file", value=str(path), expected=expected
            )


@contextlib.contextmanager
def without_files(spec: StudySpec) -> Iterator[tuple[StudySpec, list[str]]]:
    """The study as it can be planned without the user's files, and remarks on the files that are missing.

    While the context lasts, data sets have their published size, and a missing file of a teacher is replaced
    by one with random weights: of the same architecture, with the head or classifier that the arms need. The
    same holds for a student's file and for weights by name. What only the files can tell, such as the size of
    a folder of images, is refused later by `check_study`.
    """
    from trainables.data.data_sets import check_data, published_sizes
    from trainables.networks.backbones import build_backbone
    from trainables.planning.placeholder_teacher import write_placeholder_teacher
    from trainables.teachers.named_weights import stand_ins, write_backbone

    remarks = []
    with tempfile.TemporaryDirectory() as folder, stand_ins(Path(folder)) as names:
        trials = [trial_of(spec, label) for label in spec.arms]
        for told in names.why:
            remarks.append(f"{told.problem}. To run it: {told.expected}. Planned with random weights.")
        try:
            check_data(trials[0].data)
        except UserError as error:
            told = in_base(error)
            told = told.at(told.field, expected=None, hints=[f"To run it: {told.expected}"])
            said = told.message if told.field == "data.path" else str(told)
            remarks.append(f"{said} Planned with its published size.")
        with published_sizes():
            of_file: dict[Path, list[TrialSpec]] = {}
            for one in (one for trial in trials for one in trial.of_each_teacher):
                if path := _missing_checkpoint(one.teacher):
                    of_file.setdefault(path, []).append(one)
            for at, (path, taught) in enumerate(of_file.items()):
                placeholder = Path(folder) / f"teacher-{at}.safetensors"
                write_placeholder_teacher(taught, placeholder)
                remarks.append(_planned_without(path, "teacher"))
                for section in ("teacher", "teachers"):
                    given = _with_file(getattr(spec, section), path, placeholder)
                    spec = spec.model_copy(update={section: given})
            if path := _missing_checkpoint(trials[0].student):
                placeholder = Path(folder) / "student.safetensors"
                write_backbone(build_backbone(trials[0].student.model, 0), placeholder)
                student = {**spec.student, "checkpoint": str(placeholder)}
                spec = spec.model_copy(update={"student": student})
                remarks.append(_planned_without(path, "student"))
            yield spec, remarks


def _planned_without(path: Path, section: str) -> str:
    how = f"{_GIVEN_BY.format(section)}{path.name}"
    return f"{path} is not there. To run it: {how}. Planned with random weights."


def _with_file(given: Any, path: Path, other: Path) -> Any:
    """The teachers in `given`, with the file `other` in place of `path`."""
    if isinstance(given, list):
        return [_with_file(each, path, other) for each in given]
    if not isinstance(given, dict):
        return given
    changed = {name: _with_file(each, path, other) for name, each in given.items()}
    return {**changed, "checkpoint": str(other)} if str(given.get("checkpoint")) == str(path) else changed


def _missing_checkpoint(network: WeightsSpec | None) -> Path | None:
    """The network's file if it is missing."""
    path = network.checkpoint if network is not None else None
    return path if path is not None and not path.expanduser().is_file() else None
