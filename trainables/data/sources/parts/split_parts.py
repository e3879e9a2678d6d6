"""Files of a data set by split, and how messages call them."""

from __future__ import annotations

import glob
import json
import re
import shlex
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from trainables.core.errors import UserError

SHOWN = 3  # places that a message names


@dataclass
class Portion:
    """Files of one split. Of each, so many leading parts of its path are the place that the split names."""

    paths: list[str] = field(default_factory=list)
    depths: list[int] = field(default_factory=list)
    said: str = ""  # how a message calls them, where it is not by their places

    def add(self, path: str, depth: int) -> None:
        self.paths.append(path)
        self.depths.append(depth)

    def classes(self) -> list[str]:
        """The class folder of each file, "" where it lies in none."""
        return [_class(path, depth) for path, depth in zip(self.paths, self.depths, strict=True)]

    def places(self) -> list[str]:
        """What the split was read from, each once: `train/`, or `data/train-00000-of-00002.parquet`."""
        return [self.said] if self.said else list(dict.fromkeys(map(place_of, self.paths, self.depths)))

    def patterns(self) -> list[str]:
        """`data.splits` that takes these places, numbers as stars where there are several."""
        every = dict.fromkeys(map(place_of, self.paths, self.depths))
        names = [glob.escape(place.rstrip("/")) or "." for place in every]
        return names if len(names) == 1 else list(dict.fromkeys(re.sub(r"\d+", "*", name) for name in names))


@dataclass
class Sorted:
    """The files of a data set by split; `left` is read by no run."""

    portions: dict[str, Portion]
    left: list[str]

    def __getitem__(self, split: str) -> Portion:
        return self.portions.get(split) or Portion()


def folders_of(path: str) -> list[str]:
    return path.split("/")[:-1]


def typed(**splits: Iterable[str]) -> str:
    """The option that says it, in backticks: --set 'data.splits={"train": "."}'."""
    given = {split: list(splits[split]) for split in ("train", "test", "unlabelled") if split in splits}
    short = {split: some[0] if len(some) == 1 else some for split, some in given.items() if some}
    return f"`--set {shlex.quote('data.splits=' + json.dumps(short, ensure_ascii=False))}`"


def listed(places: Iterable[str]) -> str:
    """`train/`; a, b, c and 4 more."""
    every = list(dict.fromkeys(places))
    more = f" and {len(every) - SHOWN} more" if len(every) > SHOWN else ""
    return ", ".join(every[:SHOWN]) + more


def two_readings(folder: Path, first: str, second: str, ways: Iterable[tuple[str, str]]) -> UserError:
    """The refusal of a data set that can be read in two ways; `ways`: what to type, and for what."""
    said = "; ".join(f"{option} {what}" for option, what in ways)
    return UserError("data.path", f"{folder} can be read in two ways: {first}, or {second}", expected=said)


def shared_folders(paths: list[str]) -> list[str]:
    """The folders that lead to every file."""
    first, last = folders_of(min(paths)), folders_of(max(paths))
    same = 0
    while same < min(len(first), len(last)) and first[same] == last[same]:
        same += 1
    return first[:same]


def place_of(path: str, depth: int) -> str:
    names = path.split("/")
    return "/".join(names[:depth]) + ("/" if depth < len(names) else "") if depth else "./"


def _class(path: str, depth: int) -> str:
    names = path.split("/")
    return names[depth] if depth < len(names) - 1 else ""
