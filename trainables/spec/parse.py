"""Building a checked pydantic model from user input, or raising one `UserError`.

Pydantic reports all problems, in terms of Python types, under paths that contain names of union members.
`build` reports one problem: its place in the user's file, the value, the expected value, and the nearest
valid name.
"""

from __future__ import annotations

import types
from collections.abc import Iterator, Mapping
from typing import Any, Literal, TypeVar, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from trainables.core.errors import WHOLE_FILE, UserError

M = TypeVar("M", bound=BaseModel)

_LONGEST_VALUE = 100  # characters of a value that a message repeats
_MAPPING = "`name: value` lines"
_PLAIN = {
    "a valid tuple": "a list",
    "a valid list": "a list",
    "a valid dictionary": _MAPPING,
    "a valid string": "text",
    "a valid integer": "a whole number",
    "a valid number": "a number",
    "a valid boolean": "true or false",
    "Input is not a valid path for <class 'pathlib.Path'>": "a path",
    "greater than": "a number greater than",
    "less than": "a number less than",
}


def build(model: type[M], raw: Any, where: str = "") -> M:
    """`model` from `raw`. `where` is the path of `raw` in the user's file. Raises `UserError` if invalid."""
    mapping = as_mapping(raw, where)
    _refuse_booleans(model, mapping, where)
    try:
        return model.model_validate(mapping)
    except ValidationError as error:
        raise _user_error(error, model, mapping, where) from None


def as_mapping(raw: Any, where: str) -> dict[str, Any]:
    """`raw` as a mapping with text keys; None (an empty section) becomes an empty mapping.

    Raises `UserError` for other types and keys.
    """
    if raw is None:
        return {}
    if not isinstance(raw, Mapping):
        raise UserError(where or WHOLE_FILE, "is not a mapping", value=_Short(raw), expected=_MAPPING)
    for key in raw:
        if not isinstance(key, str) or not key.strip():
            raise UserError(where or WHOLE_FILE, "a field's name is not text", value=key, expected="a name")
    return dict(raw)


def spelled_out(raw: Mapping[str, Any], shorthand: Mapping[tuple[str, ...], str]) -> dict[str, Any]:
    """`raw` with each section that is one plain value (`scheduler: none`) as a mapping (`{name: none}`).

    `shorthand` maps the path of a section to the field that gets the plain value.
    """
    written = dict(raw)
    for (first, *rest), field in shorthand.items():
        inner = written.get(first)
        if rest and isinstance(inner, Mapping):
            written[first] = spelled_out(inner, {tuple(rest): field})
        elif not rest and isinstance(inner, str | int | float):
            written[first] = {field: inner}
    return written


def join(*parts: str) -> str:
    """A path in the user's file: the parts that are not empty, joined by dots."""
    return ".".join(part for part in parts if part)


def _user_error(
    error: ValidationError, model: type[BaseModel], raw: Mapping[str, Any], where: str
) -> UserError:
    """The first problem as a `UserError`. An unknown field comes first: it often explains the others."""
    problems = error.errors(include_url=False)
    problem = min(problems, key=lambda p: p["type"] != "extra_forbidden")
    loc = _written_path(problem["loc"], raw)
    path = join(where, *(str(part) for part in loc))
    owner, annotation, description = _field_at(model, loc)
    about = f" ({description})" if description else ""
    if problem["type"] == "extra_forbidden":
        return UserError(path, "no such field", value=loc[-1], choices=owner.model_fields if owner else ())
    if problem["type"] == "missing":
        return UserError(path, "is missing", expected=description)
    if problem["type"] == "value_error":
        cause = problem.get("ctx", {}).get("error")
        if isinstance(cause, UserError):
            return cause.under(path)
        return UserError(path or WHOLE_FILE, str(cause or problem["msg"]), **_value(problem, loc))
    if problem["type"] in ("model_type", "model_attributes_type"):
        return UserError(path, "is not a mapping", **_value(problem, loc), expected=_MAPPING + about)
    if problem["type"] == "literal_error":
        return UserError(path, "no such choice", **_value(problem, loc), choices=_literals(annotation))
    return UserError(
        path or WHOLE_FILE, "wrong value", **_value(problem, loc), expected=_plain(problem["msg"]) + about
    )


def _plain(message: str) -> str:
    """Pydantic's "Input should be a valid integer, unable to …" -> "a whole number"."""
    expected = message.removeprefix("Input should be ").removeprefix("Value should have ")
    for technical, plain in _PLAIN.items():
        if expected.startswith(technical):
            return plain + expected.removeprefix(technical).split(", ")[0]
    return expected


def _value(problem: ErrorDetails, loc: tuple[int | str, ...]) -> dict[str, Any]:
    """The wrong value as an argument of `UserError`; empty if it is the whole mapping, which is long."""
    return {"value": _Short(problem["input"])} if loc else {}


class _Short:
    """A value whose repr is cut, so that a message stays readable."""

    def __init__(self, value: Any) -> None:
        self.value = value

    def __repr__(self) -> str:
        text = repr(self.value)
        return text if len(text) <= _LONGEST_VALUE else text[: _LONGEST_VALUE - 1] + "…"

    def __str__(self) -> str:
        return str(self.value)


def _written_path(loc: tuple[int | str, ...], raw: Any) -> tuple[int | str, ...]:
    """`loc` without the parts that pydantic adds for union members and mapping keys."""
    path: list[int | str] = []
    here = raw
    for depth, part in enumerate(loc):
        if (isinstance(here, Mapping) and part in here) or (
            isinstance(here, list | tuple) and isinstance(part, int) and part < len(here)
        ):
            path.append(part)
            here = here[part]  # type: ignore[index]
        elif isinstance(here, Mapping) and depth == len(loc) - 1 and part not in ("[key]", 0):
            path.append(part)  # a missing field; 0: a validator made a list of the mapping
    return tuple(path)


def _field_at(
    model: type[BaseModel], loc: tuple[int | str, ...]
) -> tuple[type[BaseModel] | None, Any, str | None]:
    """(model with the field at `loc`, the field's annotation, its description)."""
    owner: type[BaseModel] | None = model
    annotation: Any = None
    description: str | None = None
    names = [part for part in loc if isinstance(part, str)]  # the items of a list are as the list is
    for depth, part in enumerate(names):
        field = owner.model_fields.get(part) if owner is not None else None
        if field is None:
            # An unknown name in `owner`, or a place inside a plain list or mapping.
            return (owner if depth == len(names) - 1 else None), annotation, description
        annotation, description = field.annotation, field.description
        if depth < len(names) - 1:
            owner = next(_models(annotation), None)
    return owner, annotation, description


def _leaves(annotation: Any) -> Iterator[Any]:
    """The plain types and literals in an annotation, with unions and `Annotated` resolved."""
    origin = get_origin(annotation)
    if origin in (Union, types.UnionType):
        for member in get_args(annotation):
            yield from _leaves(member)
    elif origin is tuple and get_args(annotation)[-1] is Ellipsis:
        yield annotation
        yield from _leaves(get_args(annotation)[0])
    elif hasattr(annotation, "__metadata__"):  # Annotated[...]
        yield from _leaves(get_args(annotation)[0])
    else:
        yield annotation


def _models(annotation: Any) -> Iterator[type[BaseModel]]:
    """The models in an annotation."""
    for leaf in _leaves(annotation):
        if isinstance(leaf, type) and issubclass(leaf, BaseModel):
            yield leaf


def _literals(annotation: Any) -> list[str]:
    """The choices of an annotation's literals."""
    return [str(c) for leaf in _leaves(annotation) if get_origin(leaf) is Literal for c in get_args(leaf)]


def _refuse_booleans(model: type[BaseModel], raw: Mapping[str, Any], where: str) -> None:
    """Raise `UserError` for true or false in place of a number: pydantic reads `epochs: true` as 1."""
    for name, value in raw.items():
        field = model.model_fields.get(name)
        if field is None:
            continue
        leaves = list(_leaves(field.annotation))
        if isinstance(value, bool) and bool not in leaves and (int in leaves or float in leaves):
            raise UserError(join(where, name), "wrong value", value=value, expected="a number, not yes or no")
        inner = next(_models(field.annotation), None)
        if inner is not None and isinstance(value, Mapping):
            _refuse_booleans(inner, value, join(where, name))
