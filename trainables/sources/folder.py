"""A folder of image files: with class folders (ImageFolder layout) or without.

Any of these, `DIR` being `data.path`; names of the parts in any case:

    DIR/train/CLASS/*.jpg  with DIR/test/CLASS/*.jpg (or val, valid, validation) where there is a test part,
                           and DIR/unlabelled/**/*.jpg where there are images without labels
    DIR/CLASS/*.jpg        all of it is training data
    DIR/*.jpg              unlabelled (so is DIR/train/*.jpg, and a folder with a single class folder)

Class folders are searched to any depth. Beside class folders, image files that lie in none are left out, as
torchvision's ImageFolder does. Where there are both test/ and val/, test/ is the test part if it has class
folders, and val/ is not read.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from trainables.errors import UserError
from trainables.sources.base import Counts, Part, Parts, Sample, Source
from trainables.sources.files import TEST, UNLABELLED, find_files, user_folder
from trainables.splits import Ids, class_sizes
from trainables.trial import DataSpec

ENDINGS = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")


class Labelled(NamedTuple):
    """Files and their labels, -1 for none."""

    paths: list[str]  # relative to the folder
    labels: Ids


class Layout(NamedTuple):
    """What the files of a folder are for."""

    train: Labelled
    test: Labelled
    classes: int


class Folder(Source):
    name = "folder"
    summary = "a folder of image files: DIR/train/CLASS/*.jpg, DIR/CLASS/*.jpg, or DIR/*.jpg without labels"

    def where(self, spec: DataSpec) -> Path:
        return user_folder(spec, "images")

    def listing(self, spec: DataSpec) -> str:
        return find_files(self.where(spec), ENDINGS)[1]

    def counts(self, spec: DataSpec) -> Counts:
        found = self._layout(spec)
        labels = found.train.labels
        sizes = class_sizes(labels, found.classes)
        return Counts(
            sum(sizes), len(labels) - sum(sizes), len(found.test.labels), found.classes, per_class=sizes
        )

    def open(self, spec: DataSpec) -> Parts:
        folder, found = self.where(spec), self._layout(spec)
        test = _part(folder, found.test) if found.test.paths else None
        return Parts(_part(folder, found.train), test, found.classes)

    def _layout(self, spec: DataSpec) -> Layout:
        folder = self.where(spec)
        return layout(folder, find_files(folder, ENDINGS)[0])


def layout(folder: Path, paths: list[str]) -> Layout:
    """Sort the files by what they are for; `UserError` where their folders make no sense."""
    parts: dict[str, list[str]] = {}  # name of a part in lower case, "" for all else -> paths
    for path in paths:
        top, slash, _ = path.partition("/")
        known = slash and top.lower() in ("train", *TEST, *UNLABELLED)
        parts.setdefault(top.lower() if known else "", []).append(path)
    held = next((part for part in TEST if any(_class(path, part) for path in parts.get(part, []))), "")
    if "train" not in parts and any(part in parts for part in TEST):
        seen = ", ".join(sorted(f"{part}/" for part in parts if part))
        raise UserError("data.path", f"{folder} has {seen} and no train/", expected="train/ beside it")

    main = "train" if "train" in parts else ""
    train = parts.get(main, [])
    free = [path for part in UNLABELLED for path in parts.get(part, [])]
    classes = sorted({name for path in train if (name := _class(path, main))})
    if len(classes) < 2:
        return Layout(_unlabelled(train + free), _unlabelled([]), 0)
    index = {name: i for i, name in enumerate(classes)}
    labelled = _labelled(folder, train, main, index)
    every = Labelled(labelled.paths + free, np.append(labelled.labels, np.full(len(free), -1)))
    return Layout(every, _labelled(folder, parts[held] if held else [], held, index), len(classes))


def _class(path: str, part: str) -> str:
    """The class folder of a path in a part, or ""."""
    folders = path.split("/")[bool(part) : -1]
    return folders[0] if folders else ""


def _labelled(folder: Path, paths: list[str], part: str, index: dict[str, int]) -> Labelled:
    inside = [path for path in paths if _class(path, part)]
    for name in sorted({_class(path, part) for path in inside}.difference(index)):
        problem = f"{folder}/{part} has a class that the training images lack"
        raise UserError("data.path", problem, value=name, choices=index)
    return Labelled(inside, np.array([index[_class(path, part)] for path in inside], np.int64))


def _unlabelled(paths: list[str]) -> Labelled:
    return Labelled(paths, np.full(len(paths), -1, np.int64))


def _part(folder: Path, files: Labelled) -> Part:
    def samples() -> Iterator[Sample]:
        for path, label in zip(files.paths, files.labels, strict=True):
            full = folder / path
            yield Sample(str(full), int(label), full)

    return Part(len(files.paths), samples)
