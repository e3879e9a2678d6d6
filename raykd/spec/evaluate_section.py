"""`evaluate`: what is asked of the students once the trials have ended.

    evaluate: quick
    evaluate: {on: [quick, mine.yaml], best: 3, beside: [teacher]}

It changes no trial, so it may be changed when a sweep is resumed. `suite_file.py` reads the suites.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal, get_args

from pydantic import BeforeValidator, Field, field_validator, model_serializer

from raykd.spec.suite_file import load_suite
from trainables.core.errors import UserError
from trainables.spec.suite import SuiteSpec
from trainables.spec.trial import Spec

_NAME = re.compile(r"[A-Za-z0-9][\w.+-]*")
Beside = Literal["teacher", "start", "baseline"]
BESIDE: tuple[Beside, ...] = get_args(Beside)


def _listed(given: Any) -> Any:
    return [given] if isinstance(given, str) else given


class EvaluateSpec(Spec):
    """The suites that the best students of a search, or all arms of a study, are evaluated on."""

    on: Annotated[tuple[str, ...], BeforeValidator(_listed)] = Field(
        description="a suite's file, one in `raykd list suites`, or several"
    )
    best: Annotated[int, Field(ge=1)] = Field(
        1, description="of a search: so many of its best configurations, each with all of its seeds"
    )
    sample: Annotated[int, Field(ge=0)] = Field(
        0,
        description="of a search: so many configurations drawn by chance as well, which say how well the "
        "search's score ranks students on the suite",
    )
    beside: Annotated[tuple[Beside, ...], BeforeValidator(_listed)] = Field(
        BESIDE, description="what stands beside them: teacher, start (the student as it came), baseline"
    )

    @field_validator("on")
    @classmethod
    def _some(cls, on: tuple[str, ...]) -> tuple[str, ...]:
        if not on:
            raise UserError("", "names no suite", expected="at least one")
        for at, name in enumerate(on):
            if name in on[:at]:
                raise UserError(str(at), "stands there twice", value=name)
        return on

    @model_serializer
    def _as_written(self) -> dict[str, Any]:
        drawn = {"sample": self.sample} if self.sample else {}
        return {"on": list(self.on), "best": self.best, **drawn, "beside": list(self.beside)}


def as_written(given: Any) -> Any:
    """The section of `quick` or `[quick, mine.yaml]`; a mapping as it is."""
    return {"on": given} if isinstance(given, str | list | tuple) else given


Evaluate = Annotated[EvaluateSpec | None, BeforeValidator(as_written)]


def suites_of(evaluate: EvaluateSpec | None) -> list[SuiteSpec]:
    """The suites that a section names. Raises `UserError` at `evaluate.on`, or in a suite's own file."""
    if evaluate is None:
        return []
    found = [load_suite(name, field="evaluate.on") for name in evaluate.on]
    check_names(found, "evaluate.on")
    return found


def check_names(suites: list[SuiteSpec], field: str) -> None:
    """Raise `UserError` for a name that cannot stand in `evaluate/SUITE/TASK`, and for one of two suites."""
    names = [suite.name for suite in suites]
    for at, name in enumerate(names):
        if not _NAME.fullmatch(name):
            expected = "letters, digits and . _ + - in the `name` of the file"
            raise UserError(field, "cannot be the name of a suite", value=name, expected=expected)
        if name in names[:at]:
            raise UserError(field, "two suites have this name", value=name, expected="a `name` in the file")
