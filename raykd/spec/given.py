"""A spec that Python code gives: the name of a file, YAML text, a mapping, or a typed object."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePath
from typing import Any, TypeAlias

from pydantic import BaseModel

from raykd.spec.document import parse_yaml
from trainables.core.errors import UserError
from trainables.spec.parse import as_mapping

Given: TypeAlias = str | Path | Mapping[str, Any] | BaseModel
Overrides: TypeAlias = Mapping[str, Any] | Sequence[str]


def written(given: Given) -> dict[str, Any] | None:
    """What is written in YAML text (more than one line), a mapping or a typed object, as YAML would hold it.

    None for a name or a path. Of a typed object it is what was set; defaults are left to whoever reads the
    mapping, because those of a new sweep differ from those of an older one. Raises `UserError`.
    """
    if isinstance(given, str) and "\n" in given.strip():
        return as_mapping(parse_yaml(given, "the spec"), "the spec")
    if isinstance(given, str | Path):
        return None
    if isinstance(given, BaseModel):
        return _set(given)
    if isinstance(given, Mapping):
        return {str(name): _plain(value) for name, value in given.items()}
    raise UserError("spec", "cannot be read", value=given, expected="a name, a path, YAML, a dict or a spec")


def as_overrides(overrides: Overrides) -> list[str]:
    """Overrides `path=value` as `--set` takes them, also of a mapping path -> value."""
    if isinstance(overrides, Mapping):
        return [f"{path}={json.dumps(_plain(value))}" for path, value in overrides.items()]
    if isinstance(overrides, str):
        raise UserError("overrides", "is text", value=overrides, expected='a dict, or a list of "path=value"')
    return list(overrides)


def _plain(value: Any) -> Any:
    """A value as YAML would hold it: paths as text, tuples as lists, NumPy's numbers as Python's."""
    if isinstance(value, BaseModel):
        return _set(value)
    if isinstance(value, Mapping):
        return {key: _plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    if isinstance(value, PurePath):
        return str(value)
    return value.item() if hasattr(value, "item") and getattr(value, "ndim", None) == 0 else value


def _set(model: BaseModel) -> dict[str, Any]:
    """The fields of a typed object that were set; and its name, which says of which kind a sampler is."""
    fields = [name for name in type(model).model_fields if name in model.model_fields_set or name == "name"]
    return {name: _plain(getattr(model, name)) for name in fields}
