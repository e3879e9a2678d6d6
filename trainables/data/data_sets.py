"""A data set, ready to train on: decoded images in a memory map, and who may see which of them.

    data = open_data(spec, cache_folder())
    images = data.train.take(data.train_ids[:128])      # (128, 3, S, S) uint8

The first call for a data set and size decodes it into the cache; later ones, by any process, map the file.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
from collections.abc import Iterator
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from trainables.core.errors import UserError
from trainables.core.files import cache_folder
from trainables.data.decode import decode
from trainables.data.make_store import Progress, make_store
from trainables.data.sources import Sample, Source, Taken, data_folder, find_source, sources
from trainables.data.splits import Ids, class_sizes, held_out, stratified
from trainables.data.store import FORMAT, load_store, undecodable_in
from trainables.data.store_images import Images
from trainables.data.store_writer import Undecodable
from trainables.spec.trial import DataSpec

__all__ = [
    "DataFacts",
    "DataSet",
    "Images",
    "cache_folder",
    "check_data",
    "check_pictures",
    "data_folder",
    "known_undecodable",
    "open_data",
    "published_sizes",
    "sources",
]

_LOOKED_AT = (8, 256)  # pictures, at least and at most
_LONGEST = 120  # characters of a reason
_READING = 2  # of files: goes up when the same files give other splits, labels or pixels than before


@dataclass(frozen=True)
class DataFacts:
    """What is known of a data set before it is read. Pictures that will not decode still count."""

    train_images: int  # images trained on: labelled ones that are not held out, and unlabelled ones
    classes: int  # 0: no labels
    probe_images: int = 0  # those of train_images that have a label
    validation_images: int = 0
    test_images: int = 0
    class_images: tuple[int, ...] = ()  # probe_images by class; (): not known before they are read
    class_names: tuple[str, ...] = ()  # (): not known
    taken: tuple[Taken, ...] = ()  # which files are which of these, and which are none
    remarks: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class DataSet:
    """Images and their roles. Ids are positions in `train`, sorted; `test` is never read by a search."""

    train: Images
    test: Images | None
    train_ids: Ids  # what is trained on: labelled images that are not held out, and unlabelled ones
    probe_ids: Ids  # the labelled part of train_ids
    val_ids: Ids  # held out, what the search is scored on; empty without labels
    classes: int
    fingerprint: str  # of all pixels and labels, train and test
    left_out: str = ""  # says which images could not be decoded


_published: ContextVar[bool] = ContextVar("published", default=False)


@contextlib.contextmanager
def published_sizes() -> Iterator[None]:
    """Inside, `check_data` takes a published size for a data set that is not here: for plans."""
    before = _published.set(True)
    try:
        yield
    finally:
        _published.reset(before)


def check_data(spec: DataSpec) -> DataFacts:
    """What `spec` would give, without decoding anything; `UserError` if it cannot work.

    Sizes of torchvision's data sets are the published ones; folders and Parquet files are counted.
    """
    source = _source(spec)
    counts = (source.published() if _published.get() else None) or source.counts(spec)
    held = held_out(counts.labelled, spec.validation)
    return DataFacts(
        train_images=counts.labelled - held + counts.unlabelled,
        classes=counts.classes,
        probe_images=counts.labelled - held,
        validation_images=held,
        test_images=counts.test,
        class_images=_kept(counts.per_class, spec),
        class_names=counts.class_names,
        taken=counts.taken,
        remarks=counts.remarks,
    )


def known_undecodable(spec: DataSpec, cache: Path) -> Undecodable | None:
    """What could not be decoded, where that was done before."""
    return undecodable_in(store_folder(spec, cache))


def _source(spec: DataSpec) -> Source:
    """The source of `spec`; `UserError` where it does not fit what else it says."""
    source = find_source(spec.name)
    if spec.splits is not None and not source.takes_splits:
        able = [name for name, one in sources().items() if one.takes_splits]
        problem = f"{spec.name} has splits of its own"
        raise UserError("data.splits", problem, expected=f"data.name: {' or '.join(able)}, or none")
    return source


def _kept(per_class: tuple[int, ...], spec: DataSpec) -> tuple[int, ...]:
    """What is left of each class for training: a draw takes as many of each whatever the order of images."""
    labels = np.repeat(np.arange(len(per_class)), per_class)
    held = stratified(labels, spec.validation, spec.split_seed)
    return class_sizes(np.delete(labels, held), len(per_class))


def check_pictures(spec: DataSpec) -> None:
    """Decode the first few pictures; `UserError` where none of them is one.

    As many as may be undecodable are tried, within bounds, so that a few broken ones at the start do no harm.
    """
    source = find_source(spec.name)
    if source.where(spec) is None:
        return  # it comes with a package
    part = source.look(spec)
    if part is None:
        return
    most = min(max(_LOOKED_AT[0], int(part.count * spec.max_undecodable) + 1), _LOOKED_AT[1])
    reasons = []
    for sample in itertools.islice(part.samples(), most):
        error = _trouble(sample, spec)
        if error is None:
            return
        reasons.append(f"{sample.name} ({_why(error)})")
    if not reasons:
        return
    problem = f"none of the first {len(reasons)} pictures can be decoded: {', '.join(reasons[:3])}"
    raise UserError("data.path", problem, value=str(spec.path), expected="a folder of whole pictures")


def _why(error: Exception) -> str:
    text = " ".join(f"{type(error).__name__}: {error}".split())
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…"


def _trouble(sample: Sample, spec: DataSpec) -> Exception | None:
    try:
        decode(sample.picture, spec.image_size)
    except Exception as error:  # Pillow's plugins raise nearly anything for a broken file
        return error
    return None


def open_data(spec: DataSpec, cache: Path, progress: Progress | None = None) -> DataSet:
    """Open the data set of `spec`, decoding it into `cache` first if that was not done yet.

    `progress(done, total)` counts images while decoding. `UserError` if the data set is missing or if more
    than `spec.max_undecodable` of its images cannot be decoded.
    """
    folder = store_folder(spec, cache)
    store = load_store(folder)
    if store is None:
        source = find_source(spec.name)
        about = {"source": spec.name, "path": str(source.where(spec) or "")}
        side = spec.image_size + spec.margin
        whole = spec.fit == "whole"
        store = make_store(
            folder, side, lambda: source.open(spec), spec.max_undecodable, about, progress, whole
        )
    # Asked again here, because the store may have been made under a wider limit.
    bad = store.undecodable
    bad.refuse_above(spec.max_undecodable, bad.of)

    train = store.train
    labelled = np.flatnonzero(train.labels >= 0)
    val = labelled[stratified(train.labels[labelled], spec.validation, spec.split_seed)]
    if store.classes and not len(val):
        raise UserError(
            "data", "there are too few labelled images to hold a validation part out", value=len(labelled)
        )
    return DataSet(
        train=train,
        test=store.test,
        train_ids=np.setdiff1d(np.arange(len(train)), val, assume_unique=True),
        probe_ids=np.setdiff1d(labelled, val, assume_unique=True),
        val_ids=val,
        classes=store.classes,
        fingerprint=store.fingerprint,
        left_out=bad.describe(bad.of) if bad.count else "",
    )


def store_folder(spec: DataSpec, cache: Path) -> Path:
    """Where the decoded images of `spec` lie: a name that changes with the source, its files and the size."""
    source = _source(spec)
    where = source.where(spec)
    key: dict[str, Any] = {
        "format": FORMAT,
        "source": spec.name,
        "path": str(where.resolve()) if where is not None else "",
        "side": spec.image_size + spec.margin,
        "listing": source.listing(spec),
        **({"fit": spec.fit} if spec.fit != "centre" else {}),
    }
    if where is not None:
        key["reading"] = _READING
    if spec.splits is not None:
        key["splits"] = spec.splits
    digest = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:12]
    return cache.expanduser() / "images" / f"{spec.name}-{spec.image_size + spec.margin}px-{digest}"
