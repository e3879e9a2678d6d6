"""Reading one part of a store: images off a memory map, each compared with its CRC when it is first read."""

from __future__ import annotations

import contextlib
import hashlib
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch

ABOUT = "store.json"  # beside the Arrow files; a store without it is none
_Stamp = tuple[str, int, int, int]  # path, inode, time of change, size
_whole: dict[_Stamp, npt.NDArray[np.bool_]] = {}  # which images of a file this process has found whole


class StoreDamaged(Exception):
    """An image is not what was written. The store is made anew when it is next opened."""


class Images:
    """The images of one part of a data set, read from a memory-mapped Arrow file.

    `len()` is how many, `labels` (n,) int64 with -1 for none, `classes` (0: unlabelled), `size` the side in
    pixels, `fingerprint` the SHA-256 of pixels and labels. `aspect` (n,) float32 is width / height of each
    picture where whole pictures were squeezed into squares, else None. Can be shared between threads and
    pickled.
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
        """The number of images."""
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
        """The SHA-256 of what the file holds now; equal to `fingerprint` if it is whole."""
        digest = hashlib.sha256()
        for chunk in self._chunks:
            digest.update(chunk.data)
        digest.update(self.beside())
        return digest.hexdigest()

    def beside(self) -> bytes:
        """Labels and aspect ratios as bytes, for checksums."""
        return self.labels.tobytes() + (b"" if self.aspect is None else self.aspect.tobytes())


def _stamp(path: Path) -> _Stamp:
    """What tells a file from one that was written later under the same name."""
    status = path.stat()
    return str(path), status.st_ino, status.st_mtime_ns, status.st_size


def _pixels(batch: pa.RecordBatch, values: int) -> npt.NDArray[np.uint8]:
    """The images of a batch, (rows, values) uint8, without copying them."""
    column = batch.column("image")
    return np.frombuffer(column.buffers()[1], np.uint8, count=len(column) * values).reshape(-1, values)
