"""The paths in a spec. Relative ones start from the folder in which the sweep was started, also on resume."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from trainables.core.files import expanded

_PATHS = (("teacher", "checkpoint"), ("data", "path"))


def absolute(raw: dict[str, Any], folder: Path | None = None, settings: bool = True) -> dict[str, Any]:
    """`raw` with its paths made absolute, because workers and later drivers have other working folders.

    Relative paths start from `folder`, by default this process's working folder. Without `settings` the paths
    under `fixed`, `axes` and `points` stay as written, as they did before ledger format 1.
    """

    def whole(value: Any) -> Any:
        return _whole(value, folder)

    def of_part(part: Any, name: str) -> Any:
        if isinstance(part, list):  # several teachers
            return [of_part(each, name) for each in part]
        given = part.get(name) if isinstance(part, Mapping) else None
        return {**part, name: whole(given)} if isinstance(given, str) else part

    if isinstance(named := raw.get("teachers"), Mapping):
        raw = {**raw, "teachers": {name: of_part(one, "checkpoint") for name, one in named.items()}}
    for section, name in _PATHS:
        if section in raw:
            raw = {**raw, section: of_part(raw[section], name)}
        if settings:
            raw = _absolute_settings(raw, f"{section}.{name}", whole)
    return raw


def absolute_flat(settings: Mapping[str, Any], folder: Path | None) -> dict[str, Any]:
    """Settings by their flat names, with the paths among them made absolute."""
    flat = {f"{section}.{name}" for section, name in _PATHS}
    return {name: _whole(value, folder) if name in flat else value for name, value in settings.items()}


def _whole(value: Any, folder: Path | None) -> Any:
    """A path, or each path of a list, made absolute; any other value as it is."""
    if isinstance(value, list):
        return [_whole(each, folder) for each in value]
    return str(Path(folder or "", expanded(value)).absolute()) if isinstance(value, str) else value


def _absolute_settings(raw: dict[str, Any], flat: str, whole: Callable[[Any], Any]) -> dict[str, Any]:
    """`raw` with the paths of the field `flat` under `fixed`, `axes` and `points` made absolute."""

    def within(part: Any) -> Any:
        if isinstance(part, list):
            return [within(each) for each in part]
        if not isinstance(part, Mapping) or flat not in part:
            return part
        axis = part[flat]
        if isinstance(axis, Mapping) and isinstance(axis.get("pick"), list):
            return {**part, flat: {**axis, "pick": whole(axis["pick"])}}
        return {**part, flat: whole(axis)}

    return {**raw, **{where: within(raw[where]) for where in ("fixed", "axes", "points") if where in raw}}
