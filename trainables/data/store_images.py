"""Reading one part of a store: images off a memory map, each compared with its CRC when it is first read."""

from __future__ import annotations

import contextlib
import hashlib
import mmap
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch

from trainables.core.files import opened
from trainables.core.threads import in_threads

ABOUT = "store.json"  # beside the Arrow files; a store without it is none
_ADVISED_BYTES = 256 << 20  # smaller files are read as a whole when they are opened
_THREADED_BYTES = 4 << 20  # smaller batches are copied by one thread
_Stamp = tuple[str, int, int, int]  # path, inode, time of change, size
_whole: dict[_Stamp, npt.NDArray[np.bool_]] = {}  # which images of a file this process has found whole
Ids = npt.NDArray[np.int64]


class StoreDamaged(Exception):
    """An image is not what was written. The store is made anew when it is next opened."""


class Images:
    """The images of one part of a data set, read from a memory-mapped Arrow file.

    `len()` is how many, `labels` (n,) int64 with -1 for none, `classes` (0: unlabelled), `size` the side in
    pixels, `fingerprint` the SHA-256 of pixels and labels. `aspect` (n,) float32 is width / height of each
    picture where whole pictures were squeezed into squares, else None. Can be shared between threads and
    pickled.
    """

    _advised = False  # whether `advise` does something
    _kept: tuple[int, ...] | None = None  # see `keep`

    def __init__(self, path: Path, size: int, classes: int, fingerprint: str) -> None:
        self.path, self.size, self.classes, self.fingerprint = path, size, classes, fingerprint
        self._stored_as = classes, fingerprint
        with opened(path) as file:
            self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        mapped = pa.py_buffer(self._map)
        reader = pa.ipc.open_file(pa.BufferReader(mapped))
        batches = [reader.get_batch(i) for i in range(reader.num_record_batches)]
        self._bytes = np.frombuffer(mapped, np.uint8)
        places = [self._places(batch, mapped.address) for batch in batches]
        self._starts = np.concatenate([np.zeros(0, np.int64), *(starts for starts, _ in places)])
        self._sizes = np.concatenate([np.zeros(0, np.int64), *(sizes for _, sizes in places)])
        self._table: npt.NDArray[np.uint8] | None = None  # (n, bytes), where images lie close together
        if len(batches) == 1 and (self._sizes == self._sizes[0]).all():
            start, size = int(self._starts[0]), int(self._sizes[0])
            self._table = self._bytes[start : start + len(self._sizes) * size].reshape(-1, size)
        labels = [batch.column("label").to_numpy(zero_copy_only=False) for batch in batches]
        self.labels: npt.NDArray[np.int64] = np.concatenate([np.zeros(0, np.int64), *labels])
        self.labels.flags.writeable = False
        self._ratios: npt.NDArray[np.float32] | None = None
        if "aspect" in reader.schema.names:
            self._ratios = np.concatenate(
                [np.zeros(0, np.float32), *(batch.column("aspect").to_numpy() for batch in batches)]
            )
        self.aspect = self._ratios
        crcs = [batch.column("crc").to_numpy() for batch in batches]
        self._crcs = np.concatenate([np.zeros(0, np.uint32), *crcs])
        self._stamp = _stamp(path)
        self._whole = _whole.setdefault(self._stamp, np.zeros(len(self.labels), np.bool_))
        self._advised = len(self._bytes) > _ADVISED_BYTES
        if self._advised:
            # The kernel would read 128 kB around each image, which nobody asked for.
            self._map.madvise(mmap.MADV_RANDOM)

    def __len__(self) -> int:
        """The number of images."""
        return len(self.labels)

    def __reduce__(self) -> tuple[Any, ...]:
        return Images, (self.path, self.size, *self._stored_as), self._kept

    def __setstate__(self, kept: tuple[int, ...]) -> None:
        self.keep(kept)

    def keep(self, classes: tuple[int, ...]) -> None:
        """Count labels within `classes` from now on: 0 for the first; -1 for an image of any other class."""
        number = np.full(max(self.classes, *classes) + 2, -1, np.int64)  # the last one for label -1
        number[list(classes)] = np.arange(len(classes))
        self.labels = number[self.labels]
        self.labels.flags.writeable = False
        self.classes, self._kept = len(classes), classes
        self.fingerprint = hashlib.sha256(f"{self.fingerprint} {classes}".encode()).hexdigest()

    def take(self, ids: Ids | torch.Tensor) -> torch.Tensor:
        """(B,) positions -> (B, 3, size, size) uint8, a copy.

        `IndexError` for a position out of range, `StoreDamaged` for an image that is not what was written.
        """
        ids = np.asarray(ids, dtype=np.int64)
        if len(ids) and (ids.min() < 0 or ids.max() >= len(self)):
            raise IndexError(f"image {ids.min()} … {ids.max()} of {len(self)}")
        self.advise(ids)
        out = torch.empty((len(ids), 3, self.size, self.size), dtype=torch.uint8)
        in_threads(lambda part: self._read(ids[part], out[part]), len(ids), self._least_a_thread())
        return out

    def advise(self, ids: Ids) -> None:
        """Have the kernel read these images from the disk, all at once, while this process goes on.

        Does nothing for a small store, which is in memory.
        """
        if self._advised:
            starts = self._starts[ids] // mmap.PAGESIZE * mmap.PAGESIZE
            sizes = self._starts[ids] + self._sizes[ids] - starts
            for start, size in sorted(zip(starts.tolist(), sizes.tolist(), strict=True)):
                self._map.madvise(mmap.MADV_WILLNEED, start, size)

    def _least_a_thread(self) -> int:
        """The number of images from which on a further thread is worth it."""
        return max(1, _THREADED_BYTES // (3 * self.size**2))

    def _read(self, ids: Ids, out: torch.Tensor) -> None:
        """Copy images into `out`, (B, 3, size, size)."""
        rows = out.numpy().reshape(len(ids), 3 * self.size**2)
        if self._table is not None and self._whole[ids].all():
            # `clip` lets numpy write straight into `rows`; nothing is ever clipped.
            np.take(self._table, ids, axis=0, out=rows, mode="clip")
            return
        for row, i in zip(rows, ids.tolist(), strict=True):
            row[:] = self._stored(i)
            self._check(i, row)

    def _stored(self, image: int) -> npt.NDArray[np.uint8]:
        """The bytes of an image in the file."""
        start = self._starts[image]
        return self._bytes[start : start + self._sizes[image]]

    def _check(self, image: int, content: npt.NDArray[np.uint8]) -> None:
        """Compare an image with its CRC, once a process. Raises `StoreDamaged`."""
        if not self._whole[image]:
            if zlib.crc32(content.data) != self._crcs[image]:
                self._spoil(image)
            self._whole[image] = True

    def _spoil(self, image: int) -> None:
        """Delete `store.json`, so that the store is made anew, unless another process has done that."""
        with contextlib.suppress(FileNotFoundError):
            if _stamp(self.path) == self._stamp:
                (self.path.parent / ABOUT).unlink()
        raise StoreDamaged(f"image {image} of {self.path} is not what was written; it will be decoded again")

    def found_whole(self) -> None:
        """Note that all images were compared with the fingerprint: `take` need not compare them again."""
        self._whole[:] = True

    @property
    def known_whole(self) -> bool:
        """Whether this process has compared every image with what was written."""
        return bool(self._whole.all())

    def content(self) -> str:
        """The SHA-256 of what the file holds now; the one in `store.json` if it is whole."""
        digest = hashlib.sha256()
        for image in range(len(self)):
            digest.update(self._stored(image).data)
        digest.update(self.beside())
        return digest.hexdigest()

    def beside(self) -> bytes:
        """Labels and aspect ratios as bytes, for checksums."""
        return self.labels.tobytes() + (b"" if self._ratios is None else self._ratios.tobytes())

    @staticmethod
    def _places(batch: pa.RecordBatch, base: int) -> tuple[Ids, Ids]:
        """Where the images of a batch start in the file that is mapped at address `base`, and their sizes."""
        column = batch.column("image")
        if pa.types.is_fixed_size_binary(column.type):
            size, start = column.type.byte_width, column.buffers()[1].address - base
            return start + size * np.arange(len(column)), np.full(len(column), size)
        offsets = np.frombuffer(column.buffers()[1], np.int32)[: len(column) + 1].astype(np.int64)
        return column.buffers()[2].address - base + offsets[:-1], np.diff(offsets)


def _stamp(path: Path) -> _Stamp:
    """What tells a file from one that was written later under the same name."""
    status = path.stat()
    return str(path), status.st_ino, status.st_mtime_ns, status.st_size
