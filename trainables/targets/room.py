"""The files of a folder of teachers' answers, and how many bytes there may be. Needs no torch.

writing.lock                          one process at a time counts the files, makes room and writes
SERIES/series.json                    which answers these are, for people
SERIES/EPOCH/SHARD-RANK.arrow         the answers; SHARD.lock while somebody computes them
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Literal, NamedTuple, TypeAlias

Room: TypeAlias = int | Literal["auto", "off"]  # bytes; auto: a quarter of what is free on the disk
FOLDER = "targets"  # in the cache
ABOUT = "series.json"
WRITING = "writing.lock"


class Held(NamedTuple):
    """A file of the folder."""

    path: Path
    series: str
    epoch: int
    bytes: int
    used: float  # when its series was last used, seconds since 1970
    changed: float  # when it was last written


def files(folder: Path) -> Iterator[Held]:
    """Every file of the folder's series, locks and left temporary ones too."""
    for series in entries(folder):
        used = _status(series)
        for epoch in entries(series) if used is not None else ():
            for file in entries(epoch) if epoch.name.isdigit() else ():
                status = _status(file)
                if status is not None and used is not None:
                    times = used.st_mtime, status.st_mtime
                    yield Held(Path(file), series.name, int(epoch.name), status.st_size, *times)


def entries(folder: Path | os.DirEntry[str]) -> list[os.DirEntry[str]]:
    """What a folder holds; nothing if it is a file, or gone."""
    try:
        with os.scandir(folder) as found:
            return list(found)
    except OSError:
        return []


def _status(entry: os.DirEntry[str]) -> os.stat_result | None:
    try:
        return entry.stat(follow_symlinks=False)
    except OSError:
        return None
