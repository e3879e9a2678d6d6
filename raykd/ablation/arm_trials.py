"""The trial of an arm, and the place in the study's file that a mistake in it comes from."""

from __future__ import annotations

from collections.abc import Iterable

from raykd.spec.study import StudySpec
from trainables.core.errors import UserError
from trainables.spec.trial import TrialSpec


def trial_of(spec: StudySpec, label: str) -> TrialSpec:
    """The arm's first replicate. Raises `UserError` at the key of the arm or of the base that is wrong."""
    try:
        return spec.arm_trial(label)
    except UserError as error:
        raise placed(spec, label, error) from None


def placed(spec: StudySpec, label: str, error: UserError) -> UserError:
    """The error at the key where the user wrote the field: in the arm, or in the base."""
    field = error.field
    for section in ("config.", "optim."):
        field = field.removeprefix(section)
    arm = spec.arms[label]
    # An arm with its own method or preset also has that method's settings, but the base's data and networks.
    own = under(field, arm.settings) or ((arm.method or arm.preset) and "." not in field)
    where = f"arms.{label}" if own else "base"
    return in_base(error.at(f"{where}.{field}"))


def under(name: str, fields: Iterable[str]) -> bool:
    """Whether `name` is one of these fields, or within one."""
    return any(name == field or name.startswith(f"{field}.") for field in fields)


def in_base(error: UserError) -> UserError:
    """The error with the options that it says to type as a study takes them: `--set base.data.…`."""

    def placed(text: str) -> str:
        return text.replace("--set data.", "--set base.data.").replace("--set 'data.", "--set 'base.data.")

    expected = placed(error.expected) if error.expected is not None else None
    return error.at(error.field, problem=placed(error.problem), expected=expected)
