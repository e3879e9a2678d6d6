"""What `raykd list` shows: methods, search spaces, data sets, teachers."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from trainables.errors import UserError

Table = tuple[list[str], list[list[str]]]


def catalogue(what: str, storage: Path) -> Table:
    """Columns and rows of one list. Raises `UserError` for a list that there is not."""
    if what not in _LISTS:
        raise UserError("list", "no such list", value=what, choices=_LISTS)
    return _LISTS[what](storage)


def _methods(storage: Path) -> Table:
    from trainables.method import methods

    rows = []
    for name, method in methods().items():
        needs = ", ".join(sorted(method.needs)).replace("_", " ") or "nothing"
        rows.append([name, method.summary, needs, ", ".join(method.presets)])
    return ["method", "what it does", "needs", "presets"], rows


def _spaces(storage: Path) -> Table:
    from raykd.spec import about_space, spaces

    return ["space", "about"], [[name, about_space(path)] for name, path in spaces().items()]


def _data(storage: Path) -> Table:
    from trainables.data import sources

    return ["data", "about"], [[name, source.summary] for name, source in sources().items()]


def _teachers(storage: Path) -> Table:
    """Those trained in this storage; any checkpoint that `teacher.checkpoint` can read is one too."""
    from safetensors import safe_open

    rows = []
    for path in sorted((storage / ".teachers").glob("*.safetensors")):
        with safe_open(path, framework="np") as file:
            about = file.metadata() or {}
        trial = json.loads(about.get("trial", "{}"))
        rows.append(
            [
                path.stem,
                trial.get("student", {}).get("arch", ""),
                trial.get("method", ""),
                str(trial.get("epochs", "")),
                trial.get("data", {}).get("name", ""),
                str(path),
            ]
        )
    return ["teacher", "arch", "method", "epochs", "data", "file"], rows


_LISTS: dict[str, Callable[[Path], Table]] = {
    "methods": _methods,
    "spaces": _spaces,
    "data": _data,
    "teachers": _teachers,
}
