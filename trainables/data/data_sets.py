"""A data set for training: prepared images in a memory map, and the ids of its parts.

    data = open_data(spec, cache_folder())
    images = data.train.take(data.train_ids[:128])      # (128, 3, S, S) uint8

The first call for a data set and size prepares it in the cache; later calls, by any process, map the file.
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

from trainables.core import plugins
from trainables.core.errors import UserError
from trainables.data.class_choice import numbers_of, of_classes
from trainables.data.decode import decode
from trainables.data.encode_jpeg import QUALITY
from trainables.data.make_store import Progress, make_store
from trainables.data.sources import find_source, plugins_of, sources
from trainables.data.sources.base import Sample, Source, Taken
from trainables.data.sources.parts.listing_cache import fresh_listings
from trainables.data.splits import Ids, class_sizes, held_out, stratified
from trainables.data.store import FORMAT, load_store, undecodable_in
from trainables.data.store_images import Images
from trainables.data.store_kinds import Jpegs, Squares
from trainables.data.store_writer import Undecodable
from trainables.spec.trial import DataSpec

_LOOKED_AT = (8, 256)  # pictures, at least and at most
_LONGEST = 120  # characters of a reason
_READING = 2  # raised when the same files give other splits, labels or pixels than before


@dataclass(frozen=True)
class DataFacts:
    """Facts of a data set before it is decoded. Pictures that cannot be decoded are counted, too."""

    train_images: int  # images trained on: labelled ones that are not held out, and unlabelled ones
    classes: int  # 0: no labels
    probe_images: int = 0  # those of train_images that have a label
    validation_images: int = 0
    test_images: int = 0
    class_images: tuple[int, ...] = ()  # probe_images by class; (): not known before they are read
    class_names: tuple[str, ...] = ()  # (): not known
    taken: tuple[Taken, ...] = ()  # which files belong to which part, and which to none
    remarks: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class DataSet:
    """Images and their roles. Ids are positions, in `train` but for `test_ids`, sorted.

    `test` is never read by a search.
    """

    train: Images
    test: Images | None
    test_ids: Ids  # of `test`, those of the classes that are used
    train_ids: Ids  # trained on: labelled images that are not held out, and unlabelled ones
    probe_ids: Ids  # the labelled part of train_ids
    val_ids: Ids  # held out; the search is scored on them; empty without labels
    classes: int
    fingerprint: str  # of all pixels and labels, train and test
    left_out: str = ""  # a sentence about images that could not be decoded


_published: ContextVar[bool] = ContextVar("published", default=False)


@contextlib.contextmanager
def published_sizes() -> Iterator[None]:
    """Inside, `check_data` uses published sizes, so that a plan can be made without the data set."""
    before = _published.set(True)
    try:
        yield
    finally:
        _published.reset(before)


def check_data(spec: DataSpec) -> DataFacts:
    """The facts of the data set of `spec`; nothing is decoded. Raises `UserError` if it cannot work.

    Folders and Parquet files are counted; torchvision's data sets have their published sizes.
    """
    source = _source(spec)
    counts = of_classes((source.published() if _published.get() else None) or source.counts(spec), spec)
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
    """The pictures that could not be decoded; None where the data set was not decoded before."""
    return undecodable_in(store_folder(spec, cache))


def _source(spec: DataSpec) -> Source:
    """The source of `spec`. Raises `UserError` for `splits` that the source does not take."""
    source = find_source(spec.name)
    if spec.splits is not None and not source.takes_splits:
        able = [name for name, one in sources().items() if one.takes_splits]
        problem = f"{spec.name} has splits of its own"
        raise UserError("data.splits", problem, expected=f"data.name: {' or '.join(able)}, or none")
    return source


def _kept(per_class: tuple[int, ...], spec: DataSpec) -> tuple[int, ...]:
    """The training images of each class; a draw takes as many of each in any order of images."""
    labels = np.repeat(np.arange(len(per_class)), per_class)
    held = stratified(labels, spec.validation, spec.split_seed)
    return class_sizes(np.delete(labels, held), len(per_class))


def check_pictures(spec: DataSpec) -> None:
    """Decode the first few pictures; raise `UserError` where none of them can be decoded.

    Within bounds, one more is tried than may be undecodable, so that a few broken ones at the start do not
    matter.
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
    """Open the data set of `spec`; decode it into `cache` first if that was not done yet.

    `progress(done, total)` counts images while decoding. Raises `UserError` if the data set is missing, or if
    a larger share than `spec.max_undecodable` of its images cannot be decoded.
    """
    folder = store_folder(spec, cache)
    shape = Squares(spec.image_size + spec.margin, spec.fit == "whole")
    gpu = spec.decoder == "gpu"
    store = load_store(folder, shape, gpu)
    if store is None:
        with fresh_listings():  # what is prepared has the name of what is there now
            folder = store_folder(spec, cache)
        source = find_source(spec.name)
        about = {"source": spec.name, "path": str(source.where(spec) or "")}
        kind = Jpegs(spec.short_side) if spec.keep == "jpeg" else shape
        make_store(folder, kind, lambda: source.open(spec), spec.max_undecodable, about, progress)
        store = load_store(folder, shape, gpu)
    if store is None:
        expected = "a folder that can be written: set RAYKD_CACHE"
        raise UserError("data", f"what was written to {folder} cannot be read", expected=expected)
    # Checked here, too: the store may have been made with a wider limit.
    bad = store.undecodable
    bad.refuse_above(spec.max_undecodable, bad.of)

    train, test = store.train, store.test
    other = np.zeros(0, np.int64)  # labelled images of classes that are not used
    if spec.classes is not None:
        kept = numbers_of(spec.classes, _source(spec).counts(spec))
        had = train.labels >= 0
        for part in filter(None, (train, test)):
            part.keep(kept)
        other = np.flatnonzero(had & (train.labels < 0))
    labelled = np.flatnonzero(train.labels >= 0)
    val = labelled[stratified(train.labels[labelled], spec.validation, spec.split_seed)]
    if train.classes and not len(val):
        raise UserError(
            "data", "there are too few labelled images to hold a validation part out", value=len(labelled)
        )
    return DataSet(
        train=train,
        test=test,
        test_ids=_tested(test, spec),
        train_ids=np.setdiff1d(np.arange(len(train)), np.concatenate([val, other]), assume_unique=True),
        probe_ids=np.setdiff1d(labelled, val, assume_unique=True),
        val_ids=val,
        classes=train.classes,
        fingerprint=store.fingerprint,  # after `keep`: of the classes that are used
        left_out=bad.describe(bad.of) if bad.count else "",
    )


def _tested(test: Images | None, spec: DataSpec) -> Ids:
    """The positions of the test images: all, or those of the classes that are used."""
    if test is None:
        return np.zeros(0, np.int64)
    return np.arange(len(test)) if spec.classes is None else np.flatnonzero(test.labels >= 0)


def store_folder(spec: DataSpec, cache: Path) -> Path:
    """The folder of the prepared images of `spec`.

    Its name depends on the source, its files and the size: of JPEGs the size of the files, not of the images.
    """
    source = _source(spec)
    where = source.where(spec)
    side = spec.image_size + spec.margin
    key: dict[str, Any] = {
        "format": FORMAT,
        "source": spec.name,
        "path": str(where.resolve()) if where is not None else "",
        "listing": source.listing(spec),
    }
    if spec.keep == "jpeg":
        size, key["jpeg"] = f"jpeg{spec.short_side}", [spec.short_side, QUALITY]
    else:
        size, key["side"] = f"{side}px", side
        key |= {"fit": spec.fit} if spec.fit != "centre" else {}
    if where is not None:
        key["reading"] = _READING
    if spec.splits is not None:
        key["splits"] = spec.splits
    if code := plugins.codes(plugins_of(spec.name)):
        key["code"] = plugins.unit_hashes(code)
    digest = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:12]
    return cache.expanduser() / "images" / f"{spec.name}-{size}-{digest}"
