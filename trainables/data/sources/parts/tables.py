"""Sources whose files are tables of pictures: Parquet, Arrow, tar archives of WebDataset.

The names of a file and its folders determine its split by the words of `split_words.py`: train, test,
validation or unlabelled (`train-00000-of-00003.parquet`, `test/0.tar`, `my_test_file.arrow`). If no name
contains a word for train, the files without a split word are the training data. Ambiguous names are refused
(`split_files.py`); then `data.splits` must name the split of the files. Labels are integers or words
(`table_labels.py`). If there are both a test and a validation part, the validation part is not read.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from trainables.core.errors import UserError
from trainables.data.sources.base import Counts, Part, Parts, Sample, Source, Taken
from trainables.data.sources.parts.files import user_folder
from trainables.data.sources.parts.listing_cache import files_digest, find_files
from trainables.data.sources.parts.split_files import sort_files
from trainables.data.sources.parts.split_parts import Portion, listed
from trainables.data.sources.parts.split_words import HELD_OUT
from trainables.data.sources.parts.table_labels import COLUMNS, Labels, Numbering, numbered, numbering
from trainables.data.splits import Ids, class_sizes
from trainables.spec.trial import DataSpec


class Table(ABC):
    """One file of pictures: `path`, and `labels` with one row a picture."""

    path: Path
    labels: Labels

    @abstractmethod
    def pictures(self) -> Iterator[tuple[str, bytes]]:
        """(name for messages, content) of each row, in order. `UserError` if the file cannot be read."""


class Rows(NamedTuple):
    """The rows to read of a file."""

    table: Table
    classes: Ids  # (rows,) -1: none
    only_labelled: bool  # rows without a label are skipped

    @property
    def images(self) -> int:
        """The number of images to read."""
        return int((self.classes >= 0).sum()) if self.only_labelled else len(self.classes)


class Layout(NamedTuple):
    """The files by their use."""

    train: list[Rows]
    test: list[Rows]
    numbering: Numbering
    taken: tuple[Taken, ...]
    remarks: tuple[str, ...]

    @property
    def classes(self) -> int:
        """The number of classes; 0 if the labels distinguish none."""
        return self.numbering.classes if self.numbering.classes > 1 else 0


class TableSource(Source):
    """A folder of tables. A subclass says which files they are and opens them."""

    takes_splits = True
    endings: tuple[str, ...]
    content: str  # what the folder holds, for messages
    label_fields: tuple[str, ...] = COLUMNS  # where a label may be

    @abstractmethod
    def table(self, path: Path) -> Table:
        """A file, and its labels. `UserError` if it is none of this kind."""

    def belongs(self, folder: Path, paths: list[str]) -> list[str]:
        """Those of the `paths` below `folder` that are part of the data set."""
        return paths

    def where(self, spec: DataSpec) -> Path:
        return user_folder(spec, self.content)

    def listing(self, spec: DataSpec) -> str:
        return files_digest(self.where(spec), self.endings)

    def counts(self, spec: DataSpec) -> Counts:
        found = self._layout(spec)
        labels = np.concatenate([rows.classes for rows in found.train])
        sizes = class_sizes(labels, found.classes)
        return Counts(
            sum(sizes),
            len(labels) - sum(sizes),
            sum(rows.images for rows in found.test),
            found.classes,
            per_class=sizes,
            taken=found.taken,
            class_names=found.numbering.names if found.classes else (),
            remarks=found.remarks,
        )

    def open(self, spec: DataSpec) -> Parts:
        found = self._layout(spec)
        return Parts(_part(found.train), _part(found.test) if found.test else None, found.classes)

    def _layout(self, spec: DataSpec) -> Layout:
        folder = self.where(spec)
        files = find_files(folder, self.endings)
        paths = self.belongs(folder, files.paths)
        parts = sort_files(folder, paths, spec.splits, by_file=True)
        tables = {
            split: [self.table(folder / path) for path in portion.paths]
            for split, portion in parts.portions.items()
        }
        train, free = tables.get("train", []), tables.get("unlabelled", [])
        named = [table for split in ("train", *HELD_OUT) for table in tables.get(split, [])]
        by = numbering([(t.path, t.labels) for t in train], [(t.path, t.labels.names) for t in named])
        labelled = by.classes > 1
        held = next((s for s in HELD_OUT if labelled and any(map(_has_labels, tables.get(s, [])))), "")
        test = [Rows(t, numbered(t.path, t.labels, by, "test"), True) for t in tables.get(held, [])]
        main = [
            Rows(t, numbered(t.path, t.labels, by, "train") if labelled else _none(t), False) for t in train
        ]
        more = [Rows(table, _none(table), False) for table in free]
        taken = [
            Taken(
                split, listed(parts[split if split != "test" else held].places()), sum(r.images for r in rows)
            )
            for split, rows in (("train", main), ("unlabelled", more), ("test", test))
            if rows
        ]
        for split in HELD_OUT:
            if split != held and parts[split].paths:
                taken.append(_left_out(parts[split], tables[split], parts[held] if held else None, labelled))
        if unused := sum(len(rows.classes) - rows.images for rows in test):
            taken.append(Taken("", "rows of the test part without a label", unused))
        if parts.left:
            left = Portion(parts.left, [path.count("/") + 1 for path in parts.left])
            taken.append(Taken("", listed(left.places()), 0, "no part of the data set"))
        remarks = tuple(_remarks(by, train, self.label_fields))
        return Layout(main + more, test, by, (*taken, *files.skipped()), remarks)


def _remarks(by: Numbering, train: list[Table], label_fields: tuple[str, ...]) -> Iterator[str]:
    if by.classes > 1 and by.mapped:
        some = [str(id_) for id_ in by.ids[:4]]
        shown = ", ".join([*some[:3], "…", str(by.ids[-1])] if by.classes > 4 else some)
        yield f"the labels {shown} are numbered 0 … {by.classes - 1} in sorted order"
    if by.classes == 1:
        yield f"all labels are {by.ids[0]}: read as none"
    if not by.classes:
        lacks = "no label in" if any(table.labels.column for table in train) else "no column"
        yield f"without labels: {lacks} {', '.join(label_fields)}"


def _left_out(part: Portion, tables: list[Table], held: Portion | None, labelled: bool) -> Taken:
    why = "it has no labels" if held is None else f"{listed(held.places())} is the test part"
    rows = sum(len(table.labels.rows) for table in tables)
    return Taken("", listed(part.places()), rows, why if labelled else "the images trained on have no labels")


def _has_labels(table: Table) -> bool:
    return bool((table.labels.rows >= 0).any())


def _none(table: Table) -> Ids:
    return np.full(len(table.labels.rows), -1)


def _part(rows: list[Rows]) -> Part:
    def samples() -> Iterator[Sample]:
        for some in rows:
            yield from _read(some)

    return Part(sum(some.images for some in rows), samples)


def _read(rows: Rows) -> Iterator[Sample]:
    table = rows.table
    try:
        for label, (name, content) in zip(rows.classes.tolist(), table.pictures(), strict=True):
            if label >= 0 or not rows.only_labelled:
                yield Sample(name, label, content)
    except ValueError as error:
        if isinstance(error, UserError):
            raise
        raise UserError("data.path", f"{table.path} was changed while it was read") from error
