"""Decoded images in memory-mapped Arrow files, made once and shared by every process of a node.

A store is a folder:

    train.arrow, test.arrow   Arrow IPC files: `image` fixed_size_binary(3*S*S), uint8 CHW; `label` int64;
                              `crc` uint32, the CRC-32 of the image; of whole pictures `aspect` float32
    store.json                sizes, fingerprints, which pictures could not be decoded, and its own checksum

A small file is compared with its fingerprint when it is first opened; of a larger one each image is compared
with its CRC when a process first reads it, which costs nothing beside training and needs no reading ahead.

It is written beside its place and renamed into it, whole or not at all. Of two processes that start it at
once, the second waits for the first; where the file system has no locks both write, and one rename wins.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import logging
import os
import shutil
import time
import uuid
import zlib
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch

from trainables.core.errors import UserError
from trainables.core.file_lock import FileLock
from trainables.core.files import is_own_file, opened, own_folder, read_bytes
from trainables.core.heartbeat import heartbeat, heartbeat_while
from trainables.data.sources import Parts
from trainables.data.store_writer import Undecodable, write_part

FORMAT = 2
ABOUT = "store.json"
CHECKED_BYTES = 256 << 20  # files up to this size are checked as a whole when first opened
ELSEWHERE = "a folder that can be written: set RAYKD_CACHE"
_POLL_S = 0.2  # between looks at another process that is writing the same store
Progress = Callable[[int, int], None]
_log = logging.getLogger(__name__)
_Stamp = tuple[str, int, int, int]  # path, inode, time of change, size
_whole: dict[_Stamp, npt.NDArray[np.bool_]] = {}  # which images of a file this process has found whole


class StoreDamaged(Exception):
    """An image is not what was written. The store will be made anew when it is next opened."""


class Images:
    """The images of one part of a data set, off a memory map.

    `len()` is how many, `labels` (n,) int64 with -1 for none, `classes` (0: unlabelled), `size` the side in
    pixels, `fingerprint` the SHA-256 of pixels and labels. `aspect` (n,) float32 is the width of each picture
    as a multiple of its height where whole pictures were squeezed into squares, else None. Safe to share
    between threads and to pickle.
    """

    def __init__(self, path: Path, size: int, classes: int, fingerprint: str) -> None:
        self.path, self.size, self.classes, self.fingerprint = path, size, classes, fingerprint
        with pa.memory_map(str(path)) as file:
            reader = pa.ipc.open_file(file)
            batches = [reader.get_batch(i) for i in range(reader.num_record_batches)]
        self._chunks = [_pixels(batch, 3 * size * size) for batch in batches]
        self._rows = len(self._chunks[0]) if self._chunks else 1  # of every chunk but the last
        labels = [batch.column("label").to_numpy(zero_copy_only=False) for batch in batches]
        self.labels: npt.NDArray[np.int64] = np.concatenate([np.zeros(0, np.int64), *labels])
        self.labels.flags.writeable = False
        self.aspect: npt.NDArray[np.float32] | None = None
        if "aspect" in reader.schema.names:
            self.aspect = np.concatenate(
                [np.zeros(0, np.float32), *(batch.column("aspect").to_numpy() for batch in batches)]
            )
        crcs = [batch.column("crc").to_numpy() for batch in batches]
        self._crcs = np.concatenate([np.zeros(0, np.uint32), *crcs])
        self._stamp = _stamp(path)
        self._whole = _whole.setdefault(self._stamp, np.zeros(len(self.labels), np.bool_))

    def __len__(self) -> int:
        return len(self.labels)

    def __reduce__(self) -> tuple[Any, ...]:
        return Images, (self.path, self.size, self.classes, self.fingerprint)

    def take(self, ids: npt.NDArray[np.int64] | torch.Tensor) -> torch.Tensor:
        """(B,) positions -> (B, 3, size, size) uint8, a copy.

        `IndexError` for a position out of range, `StoreDamaged` for an image that is not what was written.
        """
        ids = np.asarray(ids, dtype=np.int64)
        if len(ids) and (ids.min() < 0 or ids.max() >= len(self)):
            raise IndexError(f"image {ids.min()} … {ids.max()} of {len(self)}")
        out = torch.empty((len(ids), 3, self.size, self.size), dtype=torch.uint8)
        rows = out.numpy().reshape(len(ids), 3 * self.size**2)
        if len(self._chunks) == 1:
            # `clip` lets numpy write straight into `out`; nothing is ever clipped.
            np.take(self._chunks[0], ids, axis=0, out=rows, mode="clip")
        else:
            where = (part.tolist() for part in np.divmod(ids, self._rows))
            for row, (chunk, i) in enumerate(zip(*where, strict=True)):
                rows[row] = self._chunks[chunk][i]
        for row in np.flatnonzero(~self._whole[ids]).tolist():
            if zlib.crc32(rows[row].data) != self._crcs[ids[row]]:
                self._spoil(int(ids[row]))
            self._whole[ids[row]] = True
        return out

    def _spoil(self, image: int) -> None:
        """Give the store up, unless another process has made it anew by now."""
        with contextlib.suppress(FileNotFoundError):
            if _stamp(self.path) == self._stamp:
                (self.path.parent / ABOUT).unlink()
        raise StoreDamaged(f"image {image} of {self.path} is not what was written; it will be decoded again")

    def found_whole(self) -> None:
        """The content was compared with the fingerprint: no image need be looked at again."""
        self._whole[:] = True

    @property
    def known_whole(self) -> bool:
        """Has this process compared every image with what was written?"""
        return bool(self._whole.all())

    def content(self) -> str:
        """The fingerprint, worked out anew from what the file holds."""
        digest = hashlib.sha256()
        for chunk in self._chunks:
            digest.update(chunk.data)
        digest.update(self.beside())
        return digest.hexdigest()

    def beside(self) -> bytes:
        """What is known of the images beside their pixels, for checksums."""
        return self.labels.tobytes() + (b"" if self.aspect is None else self.aspect.tobytes())


def _stamp(path: Path) -> _Stamp:
    status = path.stat()
    return str(path), status.st_ino, status.st_mtime_ns, status.st_size


def _pixels(batch: pa.RecordBatch, values: int) -> npt.NDArray[np.uint8]:
    """(rows, values), without copying."""
    column = batch.column("image")
    return np.frombuffer(column.buffers()[1], np.uint8, count=len(column) * values).reshape(-1, values)


@dataclass(frozen=True)
class Store:
    """A prepared data set, opened."""

    train: Images
    test: Images | None
    classes: int
    undecodable: Undecodable

    @property
    def fingerprint(self) -> str:
        """SHA-256 over the fingerprints of both parts."""
        both = self.train.fingerprint + (self.test.fingerprint if self.test is not None else "")
        return hashlib.sha256(both.encode()).hexdigest()


def load_store(folder: Path) -> Store | None:
    """The store in `folder`; None if there is none, or a damaged one."""
    try:
        if (facts := _facts(folder)) is None:
            return None
        parts = {name: _load_part(folder, name, facts) for name in facts["parts"]}
        return Store(parts["train"], parts.get("test"), facts["classes"], Undecodable(**facts["undecodable"]))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError, KeyError, TypeError, pa.ArrowException) as error:
        _log.warning("the prepared images in %s are damaged and will be made anew: %s", folder, error)
        return None


def undecodable_in(folder: Path) -> Undecodable | None:
    """What the store in `folder` lacks of its data set; None if there is no store, or a damaged one."""
    try:
        facts = _facts(folder)
        return Undecodable(**facts["undecodable"]) if facts is not None else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _facts(folder: Path) -> dict[str, Any] | None:
    """What `store.json` says; None for one of another format."""
    facts: dict[str, Any] = json.loads(read_bytes(folder / ABOUT))
    if facts["format"] != FORMAT:
        return None
    if facts.pop("checksum") != _checksum(facts):
        raise ValueError(f"{ABOUT} is not what was written")
    return facts


def _load_part(folder: Path, name: str, facts: dict[str, Any]) -> Images:
    path, part = folder / f"{name}.arrow", facts["parts"][name]
    if not is_own_file(path):  # `UserError` for a link
        raise FileNotFoundError(path)
    status = path.stat()
    if status.st_size != part["bytes"]:
        raise ValueError(f"{path.name} has {status.st_size} bytes of {part['bytes']}")
    images = Images(path, facts["side"], facts["classes"], part["sha256"])
    if len(images) != part["images"]:
        raise ValueError(f"{path.name} has {len(images)} images of {part['images']}")
    if zlib.crc32(images.beside()) != part["labels"]:
        raise ValueError(f"the labels in {path.name} are not what was written")
    if status.st_size <= CHECKED_BYTES and not images.known_whole:
        if images.content() != images.fingerprint:
            raise ValueError(f"the content of {path.name} is not what was written")
        images.found_whole()
    return images


def _checksum(facts: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def make_store(
    folder: Path,
    side: int,
    parts: Callable[[], Parts],
    max_undecodable: float,
    about: dict[str, Any],
    progress: Progress | None = None,
    whole: bool = False,
) -> Store:
    """The store in `folder`, made from `parts()` unless it is there by now.

    `progress(done, total)` is called now and then, in images. `about` goes into `store.json`. With `whole`,
    pictures are squeezed into squares instead of cropped to them. `UserError` if
    more than the share `max_undecodable` of the pictures cannot be decoded, or there is no room.
    """
    try:
        own_folder(folder.parent)
        with _alone(folder) as locked:
            if (store := load_store(folder)) is not None:
                return store
            if locked:  # nobody else is writing: what lies about was left by a process that was killed
                for left in folder.parent.glob(f"{folder.name}.tmp-*"):
                    shutil.rmtree(left, ignore_errors=True)
            temporary = _beside(folder)
            own_folder(temporary)
            try:
                with heartbeat_while("reading or downloading what is there"):
                    found = parts()
                _write(temporary, side, found, max_undecodable, about, progress, whole)
                _put(temporary, folder)
            finally:
                shutil.rmtree(temporary, ignore_errors=True)
            store = load_store(folder)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise _no_room(folder.parent, str(error)) from error
        raise UserError("data", f"decoded images cannot be written: {error}", expected=ELSEWHERE) from error
    if store is None:
        raise UserError("data", f"what was written to {folder} cannot be read", expected=ELSEWHERE)
    return store


def _write(
    folder: Path,
    side: int,
    parts: Parts,
    limit: float,
    about: dict[str, Any],
    progress: Progress | None,
    whole: bool,
) -> None:
    named = {"train": parts.train, **({"test": parts.test} if parts.test is not None else {})}
    total = sum(part.count for part in named.values())
    need, free = total * (3 * side * side + 8), shutil.disk_usage(folder).free
    if need > free:
        raise _no_room(folder.parent, f"{need / 1e9:.1f} GB are needed, {free / 1e9:.1f} GB are free")
    bad = Undecodable(0, total, [])
    written: dict[str, Any] = {}
    done = 0
    for name, part in named.items():
        path = folder / f"{name}.arrow"

        def advance(count: int) -> None:
            nonlocal done
            done += count
            heartbeat(f"decoding images, {done}/{total}")
            if progress is not None:
                progress(done, total)
            bad.refuse_above(limit, done)

        images, sha256, labels = write_part(path, part, side, bad, advance, whole)
        if not images:
            raise UserError("data.path", f"the {name} part holds no picture that can be decoded")
        written[name] = {"images": images, "bytes": path.stat().st_size, "sha256": sha256, "labels": labels}
    facts = {"format": FORMAT, "side": side, "classes": parts.classes, "parts": written}
    facts |= {"undecodable": asdict(bad), "about": about}
    with opened(folder / ABOUT, "w") as file:
        json.dump({**facts, "checksum": _checksum(facts)}, file, indent=1)
        file.flush()
        os.fsync(file.fileno())


def _put(temporary: Path, folder: Path) -> None:
    """Rename into place; a damaged store is moved aside first, a good one that came meanwhile is kept."""
    try:
        temporary.rename(folder)
    except OSError:
        if load_store(folder) is not None:
            return
        aside = _beside(folder)
        with contextlib.suppress(FileNotFoundError):
            folder.rename(aside)
        shutil.rmtree(aside, ignore_errors=True)
        temporary.rename(folder)


def _beside(folder: Path) -> Path:
    """A new name for something temporary of `folder`."""
    return folder.with_name(f"{folder.name}.tmp-{uuid.uuid4().hex}")


def _no_room(folder: Path, why: str) -> UserError:
    return UserError(
        "data",
        f"there is no room for the decoded images in {folder}: {why}",
        expected="a larger disk (set RAYKD_CACHE) or a smaller data.image_size",
    )


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[bool]:
    """Hold the lock of `folder`, waiting for it. Yields False where the file system has no locks."""
    with FileLock(folder.with_name(f"{folder.name}.lock")) as lock:
        try:
            while not lock.try_take():
                heartbeat("waiting for another process that prepares the same images")
                time.sleep(_POLL_S)
        except OSError:
            yield False
            return
        yield True
