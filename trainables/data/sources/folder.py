"""The source `folder`: image files with class folders (ImageFolder layout) or without.

The layouts, with `DIR` = `data.path` or the only folder in it:

    DIR/train/CLASS/*.jpg  and optionally DIR/test/CLASS/*.jpg (or DIR/validation/…) as the test part, and
                           DIR/unlabelled/**/*.jpg as images without labels
    DIR/CLASS/*.jpg        all training data
    DIR/*.jpg              unlabelled (also DIR/train/*.jpg, and a folder with a single class folder)

`split_words.py` defines the words for train, test and validation, and their places in a name. If no folder
has one, the names of the pictures are read. Class folders are searched to any depth. Image files beside class
folders are left out, as in torchvision's ImageFolder. If test/ and validation/ both exist, test/ is the test
part if it has class folders, and validation/ is not read. Ambiguous layouts are refused (`split_files.py`);
then `data.splits` must name the split of the files.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from trainables.core.errors import UserError
from trainables.data.sources.base import Counts, Part, Parts, Sample, Source, Taken
from trainables.data.sources.parts.files import Files, user_folder
from trainables.data.sources.parts.listing_cache import files_digest, find_files
from trainables.data.sources.parts.split_files import Patterns, sort_files
from trainables.data.sources.parts.split_parts import (
    Portion,
    Sorted,
    listed,
    shared_folders,
    two_readings,
    typed,
)
from trainables.data.sources.parts.split_words import HELD_OUT
from trainables.data.splits import Ids, class_sizes
from trainables.spec.trial import DataSpec

ENDINGS = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")


class Labelled(NamedTuple):
    """Files and their labels, -1 for none."""

    paths: list[str]  # relative to the folder
    labels: Ids


class Layout(NamedTuple):
    """The files of a folder by their use."""

    train: Labelled
    test: Labelled
    classes: list[str]
    taken: tuple[Taken, ...]


class Folder(Source):
    """The data source `folder`."""

    name = "folder"
    summary = "a folder of image files: DIR/train/CLASS/*.jpg, DIR/CLASS/*.jpg, or DIR/*.jpg without labels"
    takes_splits = True

    def where(self, spec: DataSpec) -> Path:
        return user_folder(spec, "images")

    def listing(self, spec: DataSpec) -> str:
        return files_digest(self.where(spec), ENDINGS)

    def counts(self, spec: DataSpec) -> Counts:
        found = self._layout(spec)
        labels = found.train.labels
        sizes = class_sizes(labels, len(found.classes))
        return Counts(
            sum(sizes),
            len(labels) - sum(sizes),
            len(found.test.labels),
            len(found.classes),
            per_class=sizes,
            taken=found.taken,
            class_names=tuple(found.classes),
        )

    def open(self, spec: DataSpec) -> Parts:
        folder, found = self.where(spec), self._layout(spec)
        test = _part(folder, found.test) if found.test.paths else None
        return Parts(_part(folder, found.train), test, len(found.classes))

    def _layout(self, spec: DataSpec) -> Layout:
        folder = self.where(spec)
        return layout(folder, find_files(folder, ENDINGS), spec.splits)


def layout(folder: Path, files: Files, splits: Patterns | None) -> Layout:
    """Sort the files by their use. `UserError` if their folders make no sense or are ambiguous."""
    found = sort_files(folder, files.paths, splits, by_file=False)
    train, free = found["train"], found["unlabelled"]
    classes = sorted(set(train.classes()) - {""})
    if len(classes) == 1 and splits is None:
        _refuse_deeper(folder, found)
    if len(classes) < 2:
        classes = []
    index = {name: i for i, name in enumerate(classes)}
    held = next((split for split in HELD_OUT if classes and any(found[split].classes())), "")
    main = _labelled(folder, train, index, train) if classes else _unlabelled(train.paths)
    test = _labelled(folder, found[held], index, train) if held else _unlabelled([])
    every = Labelled(main.paths + free.paths, np.append(main.labels, np.full(len(free.paths), -1)))
    taken = [Taken("train", listed(train.places()), len(main.paths))] if train.paths else []
    taken += [Taken("unlabelled", listed(free.places()), len(free.paths))] if free.paths else []
    taken += [Taken("test", listed(found[held].places()), len(test.paths))] if held else []
    return Layout(every, test, classes, (*taken, *_left_out(found, files, held, main, test)))


def _left_out(found: Sorted, files: Files, held: str, train: Labelled, test: Labelled) -> Iterator[Taken]:
    for split in HELD_OUT:
        part = found[split]
        if part.paths and split != held:
            why = f"{listed(found[held].places())} is the test part" if held else "it has no class folders"
            why = why if any(found["train"].classes()) else "the images trained on have no labels"
            yield Taken("", listed(part.places()), len(part.paths), why)
    loose = len(found["train"].paths) - len(train.paths)
    loose += len(found[held].paths) - len(test.paths) if held else 0
    if loose:
        yield Taken("", "pictures in no class folder", loose)
    if found.left:
        yield Taken("", listed(_tops(found)), len(found.left), "no part of the data set")
    yield from files.skipped()


def _tops(found: Sorted) -> list[str]:
    """The topmost folders or files that were left out completely."""
    used = {path.split("/")[0] for portion in found.portions.values() for path in portion.paths}
    depths = [1 if path.split("/")[0] not in used else 2 for path in found.left]
    return Portion(found.left, depths).places()


def _refuse_deeper(folder: Path, found: Sorted) -> None:
    """`UserError` if the only class folder contains folders: those may be the classes."""
    paths = found["train"].paths
    shared = shared_folders(paths)
    if not all(path.count("/") > len(shared) for path in paths):
        return
    base = "/".join(shared)
    inner = listed(f"{path.split('/')[len(shared)]}/" for path in paths)
    held = next((split for split in HELD_OUT if found[split].paths), "")
    nested = {"train": [base]}
    if held:
        nested["test"] = ["/".join(shared_folders(found[held].paths)) or "."]
    flat = {"unlabelled": ["."]} if not held else {"unlabelled": found["train"].patterns()}
    raise two_readings(
        folder,
        f"{inner} in {base}/ are classes",
        "all of these images are without labels",
        [(typed(**nested), "for the first"), (typed(**flat), "for the second")],
    )


def _labelled(folder: Path, portion: Portion, index: dict[str, int], train: Portion) -> Labelled:
    names = portion.classes()
    for name in sorted({name for name in names if name}.difference(index)):
        problem = f"{folder}/{listed(portion.places())} has a class that the training images lack"
        expected = f"their classes, or {typed(train=train.patterns())} to leave it out"
        raise UserError("data.path", problem, value=name, expected=expected, choices=index)
    inside = [(path, index[name]) for path, name in zip(portion.paths, names, strict=True) if name]
    return Labelled([path for path, _ in inside], np.array([label for _, label in inside], np.int64))


def _unlabelled(paths: list[str]) -> Labelled:
    return Labelled(paths, np.full(len(paths), -1, np.int64))


def _part(folder: Path, files: Labelled) -> Part:
    def samples() -> Iterator[Sample]:
        for path, label in zip(files.paths, files.labels, strict=True):
            full = folder / path
            yield Sample(str(full), int(label), full)

    return Part(len(files.paths), samples)


SOURCES = (Folder(),)
