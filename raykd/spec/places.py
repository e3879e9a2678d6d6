"""Where a mistake stands in a user's file."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from trainables.core.errors import UserError
from trainables.training.flat_names import TEACHER, FlatField


def placed_under(where: str, fields: Mapping[str, FlatField], error: UserError) -> UserError | None:
    """`error` under `where`, by the name of the field that it is about; None if it is about none of these."""
    flat = re.sub(r"^(config|optim)\.", "", error.field)
    for name, field in fields.items():
        # The parts of a teacher that is chosen as a whole are elsewhere.
        if flat == field.flat or (flat.startswith(field.flat + ".") and field.flat != TEACHER):
            return error.at(f"{where}.{name}")
    return None


def refuse_repeats(values: tuple[Any, ...]) -> None:
    """`UserError` at the place of the first value that stands there a second time."""
    for at, value in enumerate(values):
        if value in values[:at]:
            raise UserError(str(at), "stands there twice", value=value)
