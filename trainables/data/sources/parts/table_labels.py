"""The labels of a file of pictures, and one numbering 0 … C-1 for the labels of several files.

Labels that are 0 … C-1, or that the Hugging Face schema names, stay as they are. All others are ids (integers
or words) and are numbered in sorted order. A missing label is null, NaN, "" or -1.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from trainables.core.errors import UserError
from trainables.data.splits import Ids

COLUMNS = ("label", "labels", "fine_label")
NONE = -1
_MOST = 2**63 - 1


class Labels(NamedTuple):
    """The labels of one file."""

    ids: np.ndarray  # the distinct labels, sorted: int64, or str in an object array
    rows: Ids  # (rows,) index in `ids` of each row's label, -1 for none
    names: tuple[str, ...]  # class names in the schema; () if it has none
    column: str | None  # its name; None if the file has no label column


class Numbering(NamedTuple):
    """The mapping between labels and classes."""

    ids: np.ndarray  # class -> label
    names: tuple[str, ...]  # class -> name
    mapped: bool  # False: every label is its class number

    @property
    def classes(self) -> int:
        """The number of classes."""
        return len(self.ids)


def read_labels(path: Path, schema: pa.Schema, rows: int, read: Callable[[str], pa.ChunkedArray]) -> Labels:
    """The labels in the columns of a file with `rows` rows; `read` reads a column.

    `UserError` if the label column contains other values.
    """
    column = next((name for name in COLUMNS if name in schema.names), None)
    if column is None:
        return Labels(np.zeros(0, np.int64), np.full(rows, NONE), (), None)
    return as_labels(path, column, read(column).combine_chunks(), _class_names(schema, column))


def as_labels(path: Path, column: str, given: pa.Array, names: tuple[str, ...] = ()) -> Labels:
    """The labels `given` of a file; `names` are those of its classes. `UserError` for other values."""
    values = _plain(path, column, given)
    coded = values.dictionary_encode()
    seen = coded.dictionary.to_numpy(zero_copy_only=False)
    order = np.argsort(seen, kind="stable")
    ids, place = seen[order], np.empty(len(seen), np.int64)
    place[order] = np.arange(len(seen))
    codes = coded.indices.fill_null(NONE).to_numpy(zero_copy_only=False).astype(np.int64)
    found = np.where(codes >= 0, place[codes] if len(place) else NONE, NONE)
    if ids.dtype != object and len(ids) and ids[0] < NONE:
        raise UserError("data.path", f"{path} has a label {ids[0]}", expected="0, 1, … or -1 for none")
    none = 1 if len(ids) and ids[0] in (NONE, "") else 0  # a missing label sorts first
    return Labels(ids[none:], np.maximum(found - none, NONE), names, column)


def numbering(
    tables: Sequence[tuple[Path, Labels]], named: Sequence[tuple[Path, tuple[str, ...]]]
) -> Numbering:
    """Classes for the labels of the training files `tables`; fewer than two if they separate nothing.

    `named` are the class names in all files, held-out files included. `UserError` for labels of two kinds,
    for files that name the classes differently, and for one label beside rows without a label.
    """
    texts = {labels.ids.dtype == object: path for path, labels in tables if len(labels.ids)}
    if len(texts) > 1:
        problem = f"{texts[True]} has words for labels and {texts[False]} has integers"
        raise UserError("data.path", problem, expected="one kind in all files")
    names = _one_naming([(path, names) for path, names in named if names])
    some = [labels.ids for _, labels in tables if len(labels.ids)]
    ids = np.unique(np.concatenate(some)) if some else np.zeros(0, np.int64)
    if not len(ids):
        return Numbering(ids, (), False)
    words = ids.dtype == object
    if not words and int(ids[-1]) < max(len(names), len(ids)):
        classes = max(int(ids[-1]) + 1, len(names))
        return Numbering(np.arange(classes), names if len(names) == classes else (), False)
    if len(ids) == 1 and any((labels.rows < 0).any() for _, labels in tables):
        raise UserError(
            "data.path",
            f"the only label is {ids[0]}, beside rows without one (null or -1): one class, or two",
            expected="labels 0 and 1 for two classes, or no label column",
        )
    return Numbering(ids, tuple(str(id_) for id_ in ids), True)


def numbered(path: Path, labels: Labels, by: Numbering, part: str) -> Ids:
    """(rows,) the class of each row, -1 for none. `UserError` for a label that no training image has."""
    if len(labels.ids) and (labels.ids.dtype == object) != (by.ids.dtype == object):
        known: np.ndarray = np.zeros(len(labels.ids), np.bool_)
        at = np.zeros(len(labels.ids), np.int64)
    else:
        at = np.searchsorted(by.ids, labels.ids)
        known = by.ids[np.minimum(at, len(by.ids) - 1)] == labels.ids
    if not known.all():
        strange = labels.ids[~np.asarray(known, np.bool_)][0]
        few = f"less than {by.classes}" if not by.mapped else "a label that the images trained on have"
        raise UserError("data.path", f"the {part} part has the label {strange} (in {path})", expected=few)
    return np.where(labels.rows >= 0, np.append(at, NONE)[labels.rows], NONE)


def _plain(path: Path, column: str, values: pa.Array) -> pa.Array:
    """`values` as int64 or string, null for none. `UserError` for values that are not labels."""
    if isinstance(values, pa.ChunkedArray):  # `combine_chunks` returns one if it is empty
        values = pa.concat_arrays(values.chunks) if values.num_chunks else pa.array([], values.type)
    kind = values.type
    if pa.types.is_dictionary(kind):
        values, kind = values.dictionary_decode(), kind.value_type
    if pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind):
        return values.cast(pa.string())
    if pa.types.is_null(kind):
        return values.cast(pa.int64())
    if pa.types.is_boolean(kind):
        return values.cast(pa.int8()).cast(pa.int64())
    if pa.types.is_floating(kind):
        values = values.cast(pa.float64())
        values = pc.if_else(pc.is_nan(values), None, values)
        if not pc.all(pc.equal(values, pc.round(values)), min_count=0).as_py():
            strange = values.filter(pc.not_equal(values, pc.round(values)))[0]
            raise UserError("data.path", f"{path} has a label {strange}", expected="integers or words")
    elif not pa.types.is_integer(kind):
        problem = f"the column {column!r} of {path} holds {kind}"
        raise UserError("data.path", problem, expected="integers or words")
    try:
        return values.cast(pa.int64())
    except pa.ArrowInvalid:
        problem = f"{path} has a label {pc.max(values)}"
        raise UserError("data.path", problem, expected=f"at most {_MOST}") from None


def _class_names(schema: pa.Schema, label: str) -> tuple[str, ...]:
    """The class names in Hugging Face's metadata; () if there are none."""
    try:
        features: Any = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
        return tuple(map(str, features[label]["names"]))
    except (KeyError, TypeError, ValueError):
        return ()


def _one_naming(tables: Sequence[tuple[Path, tuple[str, ...]]]) -> tuple[str, ...]:
    """The names of the classes. `UserError` if two files number them differently."""
    for path, names in tables:
        first = tables[0][1]
        if names != first:
            at = next((i for i, (a, b) in enumerate(zip(first, names, strict=False)) if a != b), None)
            how = f"{len(first)} and {len(names)}" if at is None else f"{at} is {first[at]} and {names[at]}"
            problem = f"{tables[0][0]} and {path} name the classes differently: {how}"
            raise UserError("data.path", problem, expected="one list of names in all files")
    return tables[0][1] if tables else ()
