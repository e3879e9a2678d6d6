"""Data sources by name.

A source counts its images before it reads them (`counts`), identifies the files that it would read
(`listing`), and yields its pictures one by one (`open`), so memory does not grow with the number of images.
To add one, write a file in this folder with a `Source` in `SOURCES`; it is found by itself. `parts/` contains
code that several sources share. A module of the user's own (`trainables.core.plugins`) has such a table, too.
"""

from __future__ import annotations

from functools import cache
from types import ModuleType

from trainables.core import plugins
from trainables.core.discovery import added, by_name, rows
from trainables.core.errors import UserError
from trainables.data.sources.base import METRICS, Source


@cache
def _all() -> dict[str, Source]:
    """Name -> source, in the order of `raykd list data`: sources with published counts come first.

    `TypeError` for two sources with one name, and for a file without a source.
    """
    found = rows(__name__, "SOURCES", Source)  # type: ignore[type-abstract]  # instances of its subclasses
    return by_name(sorted(found, key=lambda source: source.published() is None), lambda source: source.name)


def sources() -> dict[str, Source]:
    """Name -> source, in the order for display; those of plug-ins last. `UserError` for a wrong plug-in."""
    found = {module: added_by(module) for module in plugins.modules(plugins.SOURCES)}
    return added(_all(), found, lambda source: source.name)


def added_by(module: ModuleType) -> list[Source]:
    """What a plug-in lists as `SOURCES`. Raises `UserError` for something else in it."""
    own = getattr(module, "SOURCES", ())
    if not isinstance(own, tuple | list) or not all(isinstance(row, Source) for row in own):
        field = f"{module.__name__}.SOURCES"
        raise UserError(field, "holds something else than data sources", expected="`(MySource(…),)`")
    for source in own:
        if source.metric not in METRICS:
            field = f"{module.__name__}.SOURCES"
            problem = f"{source.name} has an unknown metric"
            raise UserError(field, problem, value=source.metric, choices=METRICS)
    return list(own)


def plugins_of(name: str) -> list[str]:
    """The modules outside of raykd that the source called `name` comes from; [] where there are none."""
    if name in _all() or (source := sources().get(name)) is None:
        return []
    kind = type(source).__module__
    offering = (m for m in plugins.modules(plugins.SOURCES) if any(s.name == name for s in added_by(m)))
    return [*(module.__name__ for module in offering), *([] if plugins.is_own(kind) else [kind])]


def find_source(name: str) -> Source:
    """The source called `name`. `UserError` with the nearest name if there is none."""
    known = _all() if name in _all() else sources()
    if name not in known:
        raise UserError("data.name", "no such data source", value=name, choices=known)
    return known[name]
