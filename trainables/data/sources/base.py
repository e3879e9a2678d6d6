"""The interface of data sources, and the records that describe their data."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple, get_args

from PIL import Image

from trainables.core.files import cache_folder
from trainables.spec.trial import DataSpec

Picture = Path | bytes | Image.Image  # a file, the content of a file, or pixels

# How the test of a data set is scored: accuracy over all images, or the mean of the classes' accuracies.
Metric = Literal["top1", "mean_per_class"]
METRICS: tuple[Metric, ...] = get_args(Metric)


class Sample(NamedTuple):
    """One picture, not decoded yet."""

    name: str  # for messages
    label: int  # -1: none
    picture: Picture


@dataclass(frozen=True)
class Part:
    """A part of a data set: the number of samples, and a function that iterates over them from the start."""

    count: int
    samples: Callable[[], Iterator[Sample]]


@dataclass(frozen=True)
class Parts:
    """A data set: the training part, labelled or not, and the test part, which is never trained on."""

    train: Part
    test: Part | None
    classes: int  # 0: no labels


class Taken(NamedTuple):
    """A group of a source's files, and the split that they belong to."""

    split: str  # train, test, unlabelled; "" for files that no run reads
    what: str  # the files, such as `train/` or `*.gif`
    images: int
    why: str = ""  # why no run reads them


@dataclass(frozen=True)
class Counts:
    """The numbers of a source's images, as far as they are known without decoding."""

    labelled: int  # training images with a label
    unlabelled: int  # training images without a label
    test: int
    classes: int
    per_class: tuple[int, ...] = ()  # labelled training images of each class; (): unknown before reading
    taken: tuple[Taken, ...] = ()  # the split of each group of files
    class_names: tuple[str, ...] = ()  # (): unknown
    remarks: tuple[str, ...] = ()  # further remarks for the user


class Source(ABC):
    """A kind of place to read images from. One source may read many data sets, as `folder` does."""

    name: str
    summary: str  # one line for `raykd list data`
    metric: Metric = "top1"  # the usual one of papers that report this data set
    takes_splits = False  # whether `data.splits` may name the files of each split

    @abstractmethod
    def where(self, spec: DataSpec) -> Path | None:
        """The folder to read; None if none is needed. `UserError` if a path is needed and missing."""

    @abstractmethod
    def counts(self, spec: DataSpec) -> Counts:
        """The numbers of images. `UserError` with the place and the option to set if the data are missing."""

    @abstractmethod
    def open(self, spec: DataSpec) -> Parts:
        """The parts of the data set, ready to be read. May download if `spec.download`.

        `UserError` as in `counts`.
        """

    def published(self) -> Counts | None:
        """The numbers of images if they are the same on every machine; None if they depend on user files."""
        return None

    def look(self, spec: DataSpec) -> Part | None:
        """The training part, to check its pictures; None if opening it takes long or downloads.

        `UserError` as in `open`.
        """
        return self.open(spec).train

    def listing(self, spec: DataSpec) -> str:
        """Digest of names, sizes and times of the files to read; "" if they cannot change."""
        return ""


def data_folder() -> Path:
    """Default folder of data sets: $RAYKD_DATA, else `raw` in the cache ($RAYKD_CACHE, ~/.cache/raykd)."""
    given = os.environ.get("RAYKD_DATA")
    return Path(given).expanduser() if given else cache_folder() / "raw"
