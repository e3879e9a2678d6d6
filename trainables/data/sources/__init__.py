"""Where images come from: every data source by name.

A source says what it holds before it is read (`counts`), which files it would read (`listing`), and returns
its pictures one after another (`open`): preparing a million images needs no more memory than a thousand. To
add one, write a file in this folder with a `Source` in `SOURCES`: it is found by itself. What several sources
share lies in `parts/`.
"""

from __future__ import annotations

from functools import cache

from trainables.core.discovery import by_name, rows
from trainables.core.errors import UserError
from trainables.data.sources.base import Source


@cache
def _all() -> dict[str, Source]:
    """Every source by name, those first that hold the same wherever they lie: `raykd list data` shows this.

    `TypeError` for two of one name, and for a file without a source.
    """
    found = rows(__name__, "SOURCES", Source)  # type: ignore[type-abstract]  # instances of what is below it
    return by_name(sorted(found, key=lambda source: source.published() is None), lambda source: source.name)


def sources() -> dict[str, Source]:
    """Every source by name, in the order to show them in."""
    return dict(_all())


def find_source(name: str) -> Source:
    """The source called `name`; `UserError` with the nearest name otherwise."""
    known = _all()
    if name not in known:
        raise UserError("data.name", "no such data source", value=name, choices=known)
    return known[name]
