"""What an arm's trial is, and where in the study's file a mistake in it was written."""

from __future__ import annotations

from collections.abc import Iterable

from raykd.spec.study import StudySpec
from trainables.core.errors import UserError
from trainables.spec.trial import TrialSpec


def trial_of(spec: StudySpec, label: str) -> TrialSpec:
    """The arm's first replicate. Raises `UserError` at the arm, or at the base, for what it cannot be."""
    try:
        return spec.arm_trial(label)
    except UserError as error:
        raise placed(spec, label, error) from None


def placed(spec: StudySpec, label: str, error: UserError) -> UserError:
    """The error where the user wrote the field: in the arm, or in the base."""
    field = error.field
    for section in ("config.", "optim."):
        field = field.removeprefix(section)
    arm = spec.arms[label]
    # A method or a preset of its own brings settings of its own, but no images and no networks.
    own = under(field, arm.settings) or ((arm.method or arm.preset) and "." not in field)
    where = f"arms.{label}" if own else "base"
    said = in_base(str(error).removeprefix(f"{error.field}: "))
    return UserError(f"{where}.{field}", said)


def under(name: str, fields: Iterable[str]) -> bool:
    """Is it one of these fields, or within one?"""
    return any(name == field or name.startswith(f"{field}.") for field in fields)


def in_base(text: str) -> str:
    """What a message says to type, as a study takes it."""
    return text.replace("--set data.", "--set base.data.").replace("--set 'data.", "--set 'base.data.")
