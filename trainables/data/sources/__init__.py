"""Data sources by name.

A source counts its images before it reads them (`counts`), identifies the files that it would read
(`listing`), and yields its pictures one by one (`open`), so memory does not grow with the number of images.
To add one, write a file in this folder with a `Source` in `SOURCES`; it is found by itself. `parts/` contains
code that several sources share.
"""

from __future__ import annotations

from functools import cache

from trainables.core.discovery import by_name, rows
from trainables.core.errors import UserError
from trainables.data.sources.base import Source


@cache
def _all() -> dict[str, Source]:
    """Name -> source, in the order of `raykd list data`: sources with published counts come first.

    `TypeError` for two sources with one name, and for a file without a source.
    """
    found = rows(__name__, "SOURCES", Source)  # type: ignore[type-abstract]  # instances of its subclasses
    return by_name(sorted(found, key=lambda source: source.published() is None), lambda source: source.name)


def sources() -> dict[str, Source]:
    """Name -> source, in the order for display."""
    return dict(_all())


def find_source(name: str) -> Source:
    """The source called `name`. `UserError` with the nearest name if there is none."""
    known = _all()
    if name not in known:
        raise UserError("data.name", "no such data source", value=name, choices=known)
    return known[name]
