"""Files of a data set by split, and their descriptions in messages."""

from __future__ import annotations

import glob
import json
import re
import shlex
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from trainables.core.errors import UserError

SHOWN = 3  # maximum number of places in a message


@dataclass
class Portion:
    """The files of one split. A file's place is the part of its path that determined the split."""

    paths: list[str] = field(default_factory=list)
    depths: list[int] = field(default_factory=list)  # length of each file's place in path parts
    description: str = ""  # description for messages; empty: the places

    def add(self, path: str, depth: int) -> None:
        """Add a file whose place is the first `depth` parts of its path."""
        self.paths.append(path)
        self.depths.append(depth)

    def classes(self) -> list[str]:
        """The class folder of each file: the folder after its place; "" if there is none."""
        return [_class(path, depth) for path, depth in zip(self.paths, self.depths, strict=True)]

    def places(self) -> list[str]:
        """The distinct places for messages: `train/`, or `data/train-00000-of-00002.parquet`."""
        return (
            [self.description]
            if self.description
            else list(dict.fromkeys(map(place_of, self.paths, self.depths)))
        )

    def patterns(self) -> list[str]:
        """Patterns of `data.splits` for these places; numbers become stars if there are several places."""
        every = dict.fromkeys(map(place_of, self.paths, self.depths))
        names = [glob.escape(place.rstrip("/")) or "." for place in every]
        return names if len(names) == 1 else list(dict.fromkeys(re.sub(r"\d+", "*", name) for name in names))


@dataclass
class Sorted:
    """The files of a data set by split; no run reads the files in `left`."""

    portions: dict[str, Portion]
    left: list[str]

    def __getitem__(self, split: str) -> Portion:
        return self.portions.get(split) or Portion()


def folders_of(path: str) -> list[str]:
    """The folders in a path, without the file's name."""
    return path.split("/")[:-1]


def typed(**splits: Iterable[str]) -> str:
    """The option for these splits, in backticks: --set 'data.splits={"train": "."}'."""
    given = {split: list(splits[split]) for split in ("train", "test", "unlabelled") if split in splits}
    short = {split: some[0] if len(some) == 1 else some for split, some in given.items() if some}
    return f"`--set {shlex.quote('data.splits=' + json.dumps(short, ensure_ascii=False))}`"


def listed(places: Iterable[str]) -> str:
    """The distinct places as text: `train/`, or `a, b, c and 4 more`."""
    every = list(dict.fromkeys(places))
    more = f" and {len(every) - SHOWN} more" if len(every) > SHOWN else ""
    return ", ".join(every[:SHOWN]) + more


def two_readings(folder: Path, first: str, second: str, ways: Iterable[tuple[str, str]]) -> UserError:
    """The error for a data set that can be read in two ways. `ways`: (option, the reading it selects)."""
    options = "; ".join(f"{option} {what}" for option, what in ways)
    return UserError("data.path", f"{folder} can be read in two ways: {first}, or {second}", expected=options)


def shared_folders(paths: list[str]) -> list[str]:
    """The folders that all paths begin with."""
    first, last = folders_of(min(paths)), folders_of(max(paths))
    same = 0
    while same < min(len(first), len(last)) and first[same] == last[same]:
        same += 1
    return first[:same]


def place_of(path: str, depth: int) -> str:
    """The first `depth` parts of a path, with a final "/" if it is a folder; "./" for none."""
    names = path.split("/")
    return "/".join(names[:depth]) + ("/" if depth < len(names) else "") if depth else "./"


def _class(path: str, depth: int) -> str:
    names = path.split("/")
    return names[depth] if depth < len(names) - 1 else ""
