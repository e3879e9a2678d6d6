"""An axis as a search space has it:

lr: {log: [1e-3, 1e-2]}
strength: {uniform: [0, 1]}
queue_size: {integer: [256, 1024], step: 256}      # or log: true
adapter: [linear, mlp]                             # short for {pick: [linear, mlp]}
hidden: {pick: [512, 2048], when: {adapter: mlp}}  # part of the search only for those adapters
"""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BeforeValidator, SerializeAsAny

from raykd.spec.axis import Axis
from raykd.spec.axis_kinds import Integer, Log, Pick, Uniform, is_number
from trainables.core.errors import UserError
from trainables.spec.parse import build

KINDS: dict[str, type[Axis]] = {"log": Log, "uniform": Uniform, "integer": Integer, "pick": Pick}


def parse_axis(raw: Any) -> Axis:
    """An axis from its YAML value. The fields of a `UserError` are relative to the axis."""
    if isinstance(raw, Axis):
        return raw
    if isinstance(raw, list | tuple):
        return build(Pick, {"pick": raw})
    forms = "`{log: [low, high]}`, `{uniform: [low, high]}`, `{integer: [low, high]}` or a list of values"
    if not isinstance(raw, dict):
        raise UserError(
            "", "is not an axis", value=raw, expected=forms + "; a single value belongs under `fixed`"
        )
    # An integer axis may say `log: true`, so `log` alone decides only where `integer` is absent.
    kinds = [kind for kind in KINDS if kind in raw and not (kind == "log" and "integer" in raw)]
    if not kinds:
        unknown = next((str(key) for key in raw if key not in ("when", "step")), None)
        if unknown is None:
            raise UserError("", "says no range", expected=forms)
        raise UserError(unknown, "no such kind of axis", value=unknown, choices=KINDS)
    if len(kinds) > 1:
        raise UserError("", f"is both {kinds[0]} and {kinds[1]}", expected="one of them")
    for kind in ("log", "uniform", "integer"):
        if kind in kinds:
            _check_pair(kind, raw[kind])
    return build(KINDS[kinds[0]], raw)


# The type of a pydantic field that holds an axis.
AnyAxis = Annotated[SerializeAsAny[Axis], BeforeValidator(parse_axis)]


def _check_pair(kind: str, value: Any) -> None:
    if not isinstance(value, list | tuple) or len(value) != 2:
        expected = "two numbers, [low, high]"
        if isinstance(value, list | tuple):
            expected += f"; these values alone are `{{pick: {list(value)}}}`"
        raise UserError(kind, "is not a range", value=value, expected=expected)
    for end in value:
        if not is_number(end) or (kind == "integer" and end != int(end)):
            noun = "two whole numbers" if kind == "integer" else "two numbers"
            raise UserError(kind, "is not a range", value=value, expected=f"{noun}, [low, high]")
