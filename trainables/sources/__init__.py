"""Where images come from: every data source by name.

A source says what it holds before it is read (`counts`), names what it would read (`listing`), and hands out
its pictures one after another (`open`), so that preparing a data set needs no more memory for a million
images than for a thousand. To add one, write a `Source` and put it into `_all`.
"""

from __future__ import annotations

from functools import cache

from trainables.errors import UserError
from trainables.sources.base import Counts, Part, Parts, Picture, Sample, Source, Taken, data_folder

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
    from trainables.sources.digits import Digits
    from trainables.sources.folder import Folder
    from trainables.sources.parquet import Parquet
    from trainables.sources.torchvision_sets import SETS

    every: list[Source] = [Digits(), *SETS, Folder(), Parquet()]
    return {source.name: source for source in every}


def sources() -> dict[str, Source]:
    """Every source by name, in the order to show them in."""
    return dict(_all())


def find_source(name: str) -> Source:
    """The source called `name`; `UserError` with the nearest name otherwise."""
    known = _all()
    if name not in known:
        raise UserError("data.name", "no such data source", value=name, choices=known)
    return known[name]
