"""What the user's cache holds, how large it is, and the removal of teachers' answers."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from trainables.targets.room import ABOUT, FOLDER, entries, files

_KINDS = {"images": "decoded images", "raw": "data sets", "storage": "working copies of sweeps"}


class Content(NamedTuple):
    """A part of the cache."""

    kind: str  # in words
    name: str  # what it is of
    bytes: int


def content(cache: Path) -> list[Content]:
    """The parts of the cache: those of each folder, and of teachers' answers each series."""
    found = [
        Content(kind, entry.name, _size(Path(entry)))
        for folder, kind in _KINDS.items()
        for entry in sorted(entries(cache / folder), key=lambda entry: entry.name)
        if entry.is_dir(follow_symlinks=False)
    ]
    series: dict[str, tuple[int, set[int]]] = {}
    for held in files(cache / FOLDER):
        total, epochs = series.get(held.series, (0, set()))
        series[held.series] = total + held.bytes, epochs | {held.epoch}
    answers = (
        Content("teachers' answers", _described(cache / FOLDER / key, epochs - {0}), total)
        for key, (total, epochs) in series.items()
    )
    return [*found, *sorted(answers)]


def remove_targets(cache: Path) -> int:
    """Remove teachers' answers and return the bytes that were freed; another user's may stay.

    Running trials compute again what they need.
    """
    before = sum(held.bytes for held in files(cache / FOLDER))
    for series in entries(cache / FOLDER):
        if series.is_dir(follow_symlinks=False):
            shutil.rmtree(series, ignore_errors=True)  # a trial may be writing into it
    return max(0, before - sum(held.bytes for held in files(cache / FOLDER)))


def _described(series: Path, epochs: set[int]) -> str:
    """`resnet50: embed, view 1, seed 0, 12 epochs`; the folder's name where its description is damaged."""
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        facts: dict[str, Any] = json.loads((series / ABOUT).read_text())
        whom = f"{facts['arch']}: {facts['what']}"
        if "view" not in facts:
            return f"{whom}, without augmentation"
        return f"{whom}, view {int(facts['view']) + 1}, seed {facts['seed']}, epochs: {len(epochs)}"
    return series.name


def _size(folder: Path) -> int:
    return sum(_sizes(folder))


def _sizes(folder: Path) -> Iterator[int]:
    for path, _, names in os.walk(folder):
        for name in names:
            with contextlib.suppress(OSError):
                yield (Path(path) / name).lstat().st_size
