"""What every data source offers, and what it says of its data."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from PIL import Image

from trainables.core.files import cache_folder
from trainables.spec.trial import DataSpec

Picture = Path | bytes | Image.Image  # a file, a file's content, or pixels


class Sample(NamedTuple):
    """One picture, not decoded yet."""

    name: str  # for messages about it
    label: int  # -1: none
    picture: Picture


@dataclass(frozen=True)
class Part:
    """A part of a data set: the number of samples, and a function that iterates over them from the start."""

    count: int
    samples: Callable[[], Iterator[Sample]]


@dataclass(frozen=True)
class Parts:
    """A data set: what may be trained on, labelled or not, and the test part, which may not."""

    train: Part
    test: Part | None
    classes: int  # 0: no labels


class Taken(NamedTuple):
    """Which split some of the files of a source were taken for."""

    split: str  # train, test, unlabelled; "" for files that no run reads
    what: str  # such as `train/` or `3 files ending in .gif`
    images: int
    why: str = ""  # why no run reads them


@dataclass(frozen=True)
class Counts:
    """What a source holds, as far as it is known without decoding its pictures."""

    labelled: int  # training images with a label
    unlabelled: int  # training images without
    test: int
    classes: int
    per_class: tuple[int, ...] = ()  # labelled training images of each class; (): not known before reading
    taken: tuple[Taken, ...] = ()  # which files were taken for which split
    class_names: tuple[str, ...] = ()  # (): not known
    remarks: tuple[str, ...] = ()  # further remarks for the user


class Source(ABC):
    """A place that images come from. One source may read many data sets, as `folder` does."""

    name: str
    summary: str  # one line for `raykd list data`
    takes_splits = False  # whether `data.splits` may name the files of each split

    @abstractmethod
    def where(self, spec: DataSpec) -> Path | None:
        """The folder that it reads; None if it needs none. `UserError` if a path is needed and missing."""

    @abstractmethod
    def counts(self, spec: DataSpec) -> Counts:
        """What it holds. `UserError` if the data are not there, with the place and with what to type."""

    @abstractmethod
    def open(self, spec: DataSpec) -> Parts:
        """Its parts, ready to be read. May download if `spec.download`. `UserError` as for `counts`."""

    def published(self) -> Counts | None:
        """What it holds on every machine; None where only the user's files can tell."""
        return None

    def look(self, spec: DataSpec) -> Part | None:
        """The training part, to check that it holds pictures; None where opening it takes long or downloads.

        `UserError` as for `open`.
        """
        return self.open(spec).train

    def listing(self, spec: DataSpec) -> str:
        """Digest of names, sizes and times of the files that it would read; "" where they cannot change."""
        return ""


def data_folder() -> Path:
    """Where data sets lie by default: $RAYKD_DATA, else `raw` in the cache ($RAYKD_CACHE, ~/.cache/raykd)."""
    given = os.environ.get("RAYKD_DATA")
    return Path(given).expanduser() if given else cache_folder() / "raw"
