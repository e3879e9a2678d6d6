"""Which images a task learns from, chooses on and is tested on.

    parts = parts_of(task, data, spec, seed, cache)      # ids for candidates, the choice, the last fit

With all labels, candidates learn from the training part and are compared on the validation part; the best one
then learns from both. With few labels, candidates learn from these, and are compared on the validation part
without them; the best one is kept. The test split is in neither.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

from trainables.core.errors import UserError
from trainables.data.data_sets import DataSet, known_undecodable
from trainables.data.sources import find_source
from trainables.data.sources.base import Part
from trainables.data.splits import Ids
from trainables.data.store_writer import NAMED
from trainables.spec.suite_labels import ALL, PER_CLASS, LabelledTask
from trainables.spec.trial import DataSpec

_SHOWN = 3  # names that a message repeats
_LONGEST = 100_000_000  # bytes of a list of names


class Parts(NamedTuple):
    """Positions in the training images, each sorted."""

    fit: Ids  # what candidates learn from
    held: Ids  # what they are compared on
    final: Ids  # what the chosen one learns from
    drawn: bool  # whether `final` is a draw or a list, to be written down

    def check_choice(self, what: str) -> None:
        """Raise `UserError` where there are no images on which candidates of `what` could be compared."""
        if not len(self.held):
            problem = f"leave no validation images on which candidates of {what} could be compared"
            raise UserError("labels", problem, expected=f"fewer labels, or one candidate of {what}")


class Tested(NamedTuple):
    """The labelled test images: positions (N,) and classes (N,)."""

    ids: Ids
    labels: Ids


def parts_of(task: LabelledTask, data: DataSet, spec: DataSpec, seed: int, cache: Path) -> Parts:
    """The parts of a task with this seed. Raises `UserError` at `labels` for a list that does not fit."""
    pool = np.sort(np.concatenate([data.probe_ids, data.val_ids]))
    if task.labels == ALL:
        return Parts(data.probe_ids, data.val_ids, pool, False)
    if task.label_file is not None:
        chosen = np.intersect1d(listed_ids(task.label_file, spec, cache), pool)
        if not len(chosen):
            problem = "names no labelled image of the classes that are used"
            raise UserError("labels", problem, value=str(task.label_file))
    else:
        chosen = drawn_ids(task, pool, data.train.labels[pool], spec.split_seed, seed)
    held = np.setdiff1d(data.val_ids, chosen, assume_unique=True)
    return Parts(chosen, held, chosen, True)


def drawn_ids(task: LabelledTask, pool: Ids, labels: Ids, split_seed: int, seed: int) -> Ids:
    """Those of `pool`, with `labels`, that a share or a number a class draws; sorted.

    One order of each class serves every amount: what 1 % draws is part of what 10 % draws. Each class gives
    its share, rounded, and at least one image. A class with fewer images than `per_class` gives all.
    """
    rng = np.random.default_rng([split_seed, seed, len(pool)])
    order = np.lexsort((rng.random(len(pool)), labels))  # by class, in random order within it
    _, starts, sizes = np.unique(labels[order], return_index=True, return_counts=True)
    turn = np.arange(len(pool)) - np.repeat(starts, sizes)
    if isinstance(task.labels, Mapping):
        counts = np.full(len(sizes), task.labels[PER_CLASS])
    else:
        assert isinstance(task.labels, float)
        counts = np.maximum(1, np.round(sizes * task.labels).astype(np.int64))
    return np.sort(pool[order[turn < np.repeat(counts, sizes)]])


def names_in(path: Path) -> list[str]:
    """The names in a list of images, one a line, each once. Raises `UserError` for no list."""
    try:
        if path.stat().st_size > _LONGEST:
            raise UserError("labels", f"holds more than {_LONGEST:,} bytes", value=str(path))
        lines = path.read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError:
        raise UserError("labels", "is not a text file in UTF-8", value=str(path)) from None
    except OSError as error:
        problem = "no such word or file" if not path.exists() else f"cannot be read: {error.strerror}"
        raise UserError("labels", problem, value=str(path), choices=(ALL,)) from None
    names = list(dict.fromkeys(line.strip() for line in lines if line.strip()))
    if not names:
        raise UserError("labels", "holds no names", value=str(path), expected="one name of an image a line")
    return names


def listed_ids(path: Path, spec: DataSpec, cache: Path) -> Ids:
    """The positions of the images that the list `path` names, in the prepared training images; sorted.

    A name is a file's (`n01440764_10183.JPEG`, as in SimCLR's lists), or the end of its path
    (`n01440764/n01440764_10183.JPEG`). Raises `UserError` for names that are not there, or there twice, and
    for a source without file names.
    """
    return _found(path, spec, find_source(spec.name).open(spec).train, _undecodable(spec, cache))


def check_list(path: Path, spec: DataSpec) -> int:
    """The number of images that the list `path` names. Raises `UserError` as `listed_ids`; downloads nothing.

    Where the source cannot be looked at before it is prepared, names are not looked for. A list is read once
    in a process, while neither it nor the files of the data set change.
    """
    changed = path.stat().st_mtime_ns if path.exists() else 0
    return _counted(path, changed, spec, find_source(spec.name).listing(spec))


@functools.lru_cache(maxsize=16)
def _counted(path: Path, _changed: int, spec: DataSpec, _listing: str) -> int:
    part = find_source(spec.name).look(spec)
    return len(names_in(path) if part is None else _found(path, spec, part, ()))


def _found(path: Path, spec: DataSpec, part: Part, left_out: Iterable[str]) -> Ids:
    wanted = names_in(path)
    places = _places(wanted, spec, part, left_out)
    lost = [name for name in wanted if not places[name]]
    if lost:
        raise _wrong_names(path, lost, f"{len(lost)} of its {len(wanted)} names are no training images")
    twice = [name for name in wanted if len(places[name]) > 1]
    if twice:
        raise _wrong_names(path, twice, f"{len(twice)} of its names fit several images")
    ids: Ids = np.unique([places[name][0] for name in wanted])
    return ids


def _wrong_names(path: Path, names: list[str], problem: str) -> UserError:
    more = ", …" if len(names) > _SHOWN else ""
    shown = f"{problem}: {', '.join(names[:_SHOWN])}{more}"
    return UserError("labels", shown, value=str(path), expected="names of files, or ends of their paths")


def _places(wanted: list[str], spec: DataSpec, part: Part, left_out: Iterable[str]) -> dict[str, list[int]]:
    """Name -> the positions of the images whose path ends with it."""
    places: dict[str, list[int]] = {name: [] for name in wanted}
    depths = {name.count("/") for name in wanted}
    left, position = set(left_out), 0
    for sample in part.samples():
        if not isinstance(sample.picture, Path):
            problem = f"the images of {spec.name} are no files with names"
            raise UserError("labels", problem, expected="a share, {per_class: K}, or data.name: folder")
        if sample.name in left:
            continue
        whole = sample.picture.parts
        for depth in depths:
            found = places.get("/".join(whole[-depth - 1 :]))
            if found is not None:
                found.append(position)
        position += 1
    return places


def _undecodable(spec: DataSpec, cache: Path) -> list[str]:
    """The names of the pictures that the prepared images lack."""
    bad = known_undecodable(spec, cache)
    if bad is None or not bad.count:
        return []
    if bad.count > NAMED:
        problem = f"{bad.count} pictures could not be decoded, so the places of the others are not known"
        raise UserError("labels", problem, expected="a folder without these pictures")
    return [reason.rpartition(" (")[0] for reason in bad.first]


def tested(data: DataSet, spec: DataSpec) -> Tested:
    """The labelled test images. Raises `UserError` for data without such."""
    if data.test is not None and data.classes:
        labels = data.test.labels[data.test_ids]
        known = labels >= 0
        if known.any():
            return Tested(data.test_ids[known], labels[known])
    raise UserError("data.name", "has no labelled test split", value=spec.name)
