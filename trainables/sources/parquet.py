"""A folder of Parquet files in the Hugging Face image layout: `image: {bytes, path}` and `label`.

The part a file belongs to is read from its name or its folder's (`train-00000-of-00003.parquet`,
`test/0.parquet`): train, test (or val, valid, validation), unlabelled. Where no name says train, files
without such a word are the training data. A column `label`, `labels` or `fine_label` holds integers; a
missing label is null or -1. Read in streaming batches, so memory does not grow with the files.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from trainables.errors import UserError
from trainables.sources.base import Counts, Part, Parts, Sample, Source
from trainables.sources.files import TEST, UNLABELLED, find_files, user_folder
from trainables.splits import class_sizes
from trainables.trial import DataSpec

LABELS = ("label", "labels", "fine_label")
BATCH_ROWS = 64


class Table(NamedTuple):
    """One file: where it is, and what its columns are called."""

    path: Path
    image: str
    label: str | None
    rows: int
    labels: np.ndarray  # (rows,) int64, -1: none
    names: int  # classes that the schema names, 0: it does not say


class Parquet(Source):
    name = "parquet"
    summary = "a folder of Parquet files in the Hugging Face image layout (image: {bytes, path}, label)"

    def where(self, spec: DataSpec) -> Path:
        return user_folder(spec, "parquet-files")

    def listing(self, spec: DataSpec) -> str:
        return find_files(self.where(spec), (".parquet",))[1]

    def counts(self, spec: DataSpec) -> Counts:
        train, test, classes = self._tables(spec)
        labels = np.concatenate([table.labels for table in train])
        sizes, held = class_sizes(labels, classes), sum(_count(table, True) for table in test)
        return Counts(sum(sizes), len(labels) - sum(sizes), held, classes, per_class=sizes)

    def open(self, spec: DataSpec) -> Parts:
        train, test, classes = self._tables(spec)
        return Parts(_part(train, False), _part(test, True) if test else None, classes)

    def _tables(self, spec: DataSpec) -> tuple[list[Table], list[Table], int]:
        """The files to train on, those to test on, and the number of classes."""
        folder = self.where(spec)
        tables: dict[str, list[Table]] = {}
        for path in find_files(folder, (".parquet",))[0]:
            tables.setdefault(_part_of(path), []).append(_open(folder / path))
        train = tables.get("train") or tables.get("") or []
        if not train:
            raise UserError(
                "data.path", f"no file below {folder} is for training", expected="train-*.parquet"
            )
        held = [part for part in TEST if any(_count(table, True) for table in tables.get(part, []))]
        test = tables[held[0]] if held else []
        free = [table for part in UNLABELLED for table in tables.get(part, [])]

        largest, top = (
            max((int(t.labels.max(initial=-1)) for t in some), default=-1) for some in (train, test)
        )
        classes = max(largest + 1, *(table.names for table in train)) if largest >= 0 else 0
        if classes < 2:
            return [_unlabelled(table) for table in train + free], [], 0
        if top >= classes:
            raise UserError(
                "data.path", f"the test part has the label {top}", expected=f"less than {classes}"
            )
        return train + [_unlabelled(table) for table in free], test, classes


def _unlabelled(table: Table) -> Table:
    return table._replace(labels=np.full(table.rows, -1))


def _count(table: Table, only_labelled: bool) -> int:
    return int((table.labels >= 0).sum()) if only_labelled else table.rows


def _part(tables: list[Table], only_labelled: bool) -> Part:
    def samples() -> Iterator[Sample]:
        for table in tables:
            yield from _read(table, only_labelled)

    return Part(sum(_count(table, only_labelled) for table in tables), samples)


def _part_of(path: str) -> str:
    """The part that a path names: the file's own first word, or a folder's, from the inside out."""
    *folders, file = path.lower().split("/")
    words = [re.split("[^a-z]", file)[0], *reversed(folders)]
    return next((word for word in words if word in ("train", *TEST, *UNLABELLED)), "")


def _open(path: Path) -> Table:
    try:
        with pq.ParquetFile(path, page_checksum_verification=True) as file:
            schema = file.schema_arrow
            image, label = _image_column(path, schema), next((n for n in LABELS if n in schema.names), None)
            rows = file.metadata.num_rows
            labels = np.full(rows, -1)
            if label is not None:
                if not pa.types.is_integer(schema.field(label).type):
                    raise UserError(
                        "data.path",
                        f"the column {label!r} of {path} holds {schema.field(label).type}",
                        expected="integers",
                    )
                column = file.read(columns=[label]).column(label)
                labels = column.cast(pa.int64()).fill_null(-1).to_numpy().astype(np.int64)
                if labels.min(initial=0) < -1:
                    raise UserError(
                        "data.path", f"{path} has a label {labels.min()}", expected="0, 1, … or -1"
                    )
            return Table(path, image, label, rows, labels, _class_names(schema, label))
    except (pa.ArrowException, OSError) as error:
        raise UserError("data.path", f"{path} cannot be read as Parquet: {error}") from error


def _image_column(path: Path, schema: pa.Schema) -> str:
    fits = [
        field.name
        for field in schema
        if pa.types.is_struct(field.type) and field.type.get_field_index("bytes") >= 0
    ]
    if not fits:
        columns = ", ".join(f"{field.name}: {field.type}" for field in schema)
        raise UserError(
            "data.path", f"{path} has no images ({columns})", expected="a column image: {bytes, path}"
        )
    return next((name for name in ("image", "img") if name in fits), str(fits[0]))


def _class_names(schema: pa.Schema, label: str | None) -> int:
    """How many classes Hugging Face's own metadata names."""
    try:
        features: Any = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
        return len(features[label]["names"])
    except (KeyError, TypeError, ValueError):
        return 0


def _read(table: Table, only_labelled: bool) -> Iterator[Sample]:
    row = 0
    try:
        with pq.ParquetFile(table.path, page_checksum_verification=True) as file:
            for batch in file.iter_batches(batch_size=BATCH_ROWS, columns=[f"{table.image}.bytes"]):
                for content in batch.column(0).field("bytes"):
                    label = int(table.labels[row])
                    if label >= 0 or not only_labelled:
                        yield Sample(f"{table.path} row {row}", label, content.as_py() or b"")
                    row += 1
    except (pa.ArrowException, OSError) as error:
        raise UserError("data.path", f"{table.path} cannot be read after row {row}: {error}") from error
