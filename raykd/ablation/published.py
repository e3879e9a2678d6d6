"""A paper's own numbers, each with the arm that it belongs to."""

from __future__ import annotations

from collections.abc import Mapping

from raykd.ablation.study_file import StudyFile
from raykd.spec.arms import ArmSpec, Published
from raykd.spec.axis_kinds import same
from raykd.spec.document import parse_yaml
from trainables.core.errors import UserError


def published_of(file: StudyFile, arms: Mapping[str, ArmSpec]) -> Published | None:
    """The numbers by the labels of arms; with a single factor the file may name the level alone.

    Raises `UserError` for a name that is no arm, and for two numbers of one arm.
    """
    if file.published is None:
        return None
    names = {label: label for label in arms}
    if len(file.factors) == 1:
        names |= {label.partition("=")[2]: label for label in arms}
    if file.design == "leave_one_out":
        names |= {label.removeprefix("without "): label for label in arms}
    values: dict[str, float] = {}
    for name, value in file.published.values.items():
        label = names.get(name) or _with_level(name, file, arms)
        if label is None:
            raise UserError(f"published.values.{name}", "is no arm of this study", value=name, choices=names)
        if label in values:
            raise UserError(f"published.values.{name}", f"is arm {label!r}, which stands there already")
        values[label] = value
    return file.published.model_copy(update={"values": values})


def _with_level(text: str, file: StudyFile, arms: Mapping[str, ArmSpec]) -> str | None:
    """The arm of a single factor with the level that `text` names: 1e-4 is 0.0001, and 64 is 64.0."""
    if len(file.factors) != 1:
        return None
    try:
        level = parse_yaml(text, "published.values")
    except UserError:
        return None
    having = (label for label, arm in arms.items() if same(next(iter(arm.levels.values())), level))
    return next(having, None)
