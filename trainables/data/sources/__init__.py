"""Where images come from: every data source by name.

A source says what it holds before it is read (`counts`), names what it would read (`listing`), and hands out
its pictures one after another (`open`), so that preparing a data set needs no more memory for a million
images than for a thousand. To add one, write a file in this folder with a `Source` in
`SOURCES`: it is found by itself.
"""

from __future__ import annotations

import importlib
import pkgutil
from functools import cache

from trainables.core.errors import UserError
from trainables.data.sources.base import Counts, Part, Parts, Picture, Sample, Source, Taken, data_folder

__all__ = [
    "Counts",
    "Part",
    "Parts",
    "Picture",
    "Sample",
    "Source",
    "Taken",
    "data_folder",
    "find_source",
    "sources",
]


@cache
def _all() -> dict[str, Source]:
    names = [module.name for module in pkgutil.iter_modules(__path__)]
    found = [s for n in names for s in getattr(importlib.import_module(f"{__name__}.{n}"), "SOURCES", ())]
    # Those that need no path come first: it is the order to show them in.
    return {source.name: source for source in sorted(found, key=lambda s: s.published() is None)}


def sources() -> dict[str, Source]:
    """Every source by name, in the order to show them in."""
    return dict(_all())


def find_source(name: str) -> Source:
    """The source called `name`; `UserError` with the nearest name otherwise."""
    known = _all()
    if name not in known:
        raise UserError("data.name", "no such data source", value=name, choices=known)
    return known[name]
