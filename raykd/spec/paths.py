"""The paths in a spec. Relative ones start from the folder in which the sweep was started, also on resume."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from raykd.spec.evaluate_section import as_written
from trainables.core.files import expanded

_PATHS = (
    ("teacher", "checkpoint"),
    ("teacher", "train", "start", "checkpoint"),
    ("student", "checkpoint"),
    ("student", "train", "teacher", "checkpoint"),
    ("student", "train", "data", "path"),
    ("data", "path"),
)


def absolute(raw: dict[str, Any], folder: Path | None = None, settings: bool = True) -> dict[str, Any]:
    """`raw` with its paths made absolute, because workers and later drivers have other working folders.

    Relative paths start from `folder`, by default this process's working folder. Without `settings` the paths
    under `fixed`, `axes` and `points` stay as written, as they did before ledger format 1.
    """

    def whole(value: Any) -> Any:
        return _whole(value, folder)

    if isinstance(named := raw.get("teachers"), Mapping):
        for section, *rest in _PATHS:
            if section == "teacher":
                named = {name: _changed(one, rest, whole) for name, one in named.items()}
        raw = {**raw, "teachers": named}
    for path in _PATHS:
        raw = _changed(raw, path, whole)
        if settings:
            raw = _absolute_settings(raw, ".".join(path), whole)
    sources = raw.get("warm_start")
    if isinstance(sources, str | list):
        given = [sources] if isinstance(sources, str) else sources
        raw = {**raw, "warm_start": [whole(one) if _is_folder(one) else one for one in given]}
    return absolute_suites(raw, folder)


def absolute_suites(raw: dict[str, Any], folder: Path | None = None) -> dict[str, Any]:
    """`raw` with the paths of the suites under `evaluate` made absolute; names of suites stay."""

    def named(suite: Any) -> Any:
        path = isinstance(suite, str) and ("/" in suite or suite.endswith((".yaml", ".yml")))
        return _whole(suite, folder) if path else suite

    given = as_written(raw.get("evaluate"))
    on = given.get("on") if isinstance(given, Mapping) else None
    if not isinstance(on, str | list | tuple):
        return raw
    return {**raw, "evaluate": {**given, "on": named(on) if isinstance(on, str) else [*map(named, on)]}}


def _changed(part: Any, path: Sequence[str], change: Callable[[Any], Any]) -> Any:
    """`part` with `change` of the text at `path`, if there is any; of a list (teachers) in each."""
    if isinstance(part, list):
        return [_changed(each, path, change) for each in part]
    given = part.get(path[0]) if isinstance(part, Mapping) else None
    if given is None:
        return part
    if len(path) > 1:
        return {**part, path[0]: _changed(given, path[1:], change)}
    return {**part, path[0]: change(given)} if isinstance(given, str) else part


def absolute_flat(settings: Mapping[str, Any], folder: Path | None) -> dict[str, Any]:
    """Settings by their flat names, with the paths among them made absolute."""
    flat = {".".join(path) for path in _PATHS}
    return {name: _whole(value, folder) if name in flat else value for name, value in settings.items()}


def _is_folder(source: Any) -> bool:
    """Whether a sweep is named by its folder, and not by its name or its place in an object store."""
    return isinstance(source, str) and "/" in source and "://" not in source


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
