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
    said = in_base(str(error).removeprefix(f"{error.field}: "))
    return UserError(f"{where}.{field}", said)


def under(name: str, fields: Iterable[str]) -> bool:
    """Whether `name` is one of these fields, or within one."""
    return any(name == field or name.startswith(f"{field}.") for field in fields)


def in_base(text: str) -> str:
    """A message with the options that it names as a study takes them: `--set base.data.…`."""
    return text.replace("--set data.", "--set base.data.").replace("--set 'data.", "--set 'base.data.")
