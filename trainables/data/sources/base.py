"""What every data source offers."""

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

    name: str  # what a message about it calls it
    label: int  # -1: none
    picture: Picture


@dataclass(frozen=True)
class Part:
    """A part of a data set: how many samples, and a way to go through them (each call starts anew)."""

    count: int
    samples: Callable[[], Iterator[Sample]]


@dataclass(frozen=True)
class Parts:
    """A data set: what may be trained on, labelled or not, and what may not."""

    train: Part
    test: Part | None
    classes: int  # 0: no labels


class Taken(NamedTuple):
    """What some of the files of a source were taken for."""

    split: str  # train, test, unlabelled; "" for what no run reads
    what: str  # such as `train/` or `3 files ending in .gif`
    images: int
    why: str = ""  # of what is left out


@dataclass(frozen=True)
class Counts:
    """What a source holds, known without decoding."""

    labelled: int  # training images with a label
    unlabelled: int  # training images without
    test: int
    classes: int
    per_class: tuple[int, ...] = ()  # the labelled ones by class; (): not known before they are read
    taken: tuple[Taken, ...] = ()  # which files are which of these
    class_names: tuple[str, ...] = ()  # (): not known
    remarks: tuple[str, ...] = ()  # what else a reader should know


class Source(ABC):
    """A place that images come from."""

    name: str
    summary: str  # one line for `raykd list data`
    takes_splits = False  # may `data.splits` say which of its files are for what

    @abstractmethod
    def where(self, spec: DataSpec) -> Path | None:
        """The folder it reads; None where it needs none. `UserError` where a path is needed and missing."""

    @abstractmethod
    def counts(self, spec: DataSpec) -> Counts:
        """What it holds. `UserError` if it is not there, saying where it was looked for and what to type."""

    @abstractmethod
    def open(self, spec: DataSpec) -> Parts:
        """Its parts, ready to be read; may download if `spec.download`. `UserError` as for `counts`."""

    def published(self) -> Counts | None:
        """What it holds wherever it lies; None where only its files can tell."""
        return None

    def look(self, spec: DataSpec) -> Part | None:
        """What is trained on, to see that it holds pictures; None where that takes long or is elsewhere.

        `UserError` as for `open`.
        """
        return self.open(spec).train

    def listing(self, spec: DataSpec) -> str:
        """Digest of the names, sizes and times of the files it would read; empty where they cannot change."""
        return ""


def data_folder() -> Path:
    """Where data sets lie by default: $RAYKD_DATA, or `raw` in the cache: $RAYKD_CACHE, ~/.cache/raykd."""
    given = os.environ.get("RAYKD_DATA")
    return Path(given).expanduser() if given else cache_folder() / "raw"
