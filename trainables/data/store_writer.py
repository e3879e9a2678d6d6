"""Writing one part of a data set: decoding in a thread pool, in order, with constant memory."""

from __future__ import annotations

import hashlib
import itertools
import os
import zlib
from array import array
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from trainables.core.errors import UserError
from trainables.core.files import opened
from trainables.core.limits import cpus
from trainables.data.decode import decode, decode_whole
from trainables.data.sources.base import Part, Sample

CHUNK_BYTES = 32 << 20  # pixels of one Arrow record batch
GROUP = 32  # pictures that one call of the pool decodes; single small pictures would cost mostly overhead
NAMED = 10  # undecodable pictures that a message names
T = TypeVar("T")
Pixels = npt.NDArray[np.uint8]


@dataclass
class Undecodable:
    """The pictures that could not be decoded."""

    count: int
    of: int  # all pictures
    first: list[str]  # name and error of the first ten undecodable pictures

    def add(self, reason: str) -> None:
        """Count one more picture; `reason` contains its name and the error."""
        self.count += 1
        if len(self.first) < NAMED:
            self.first.append(reason)

    def describe(self, done: int) -> str:
        """One sentence for messages, after `done` images were tried."""
        those = f"{self.of}" if done == self.of else f"the first {done}"
        more = f", and {self.count - len(self.first)} more" if self.count > len(self.first) else ""
        return f"{self.count} of {those} images cannot be decoded: {'; '.join(self.first)}{more}"

    def refuse_above(self, share: float, done: int) -> None:
        """`UserError` if more than `share` of all pictures are undecodable.

        Before the end (`done` < all) it waits until the message can name ten of them.
        """
        if self.count > share * self.of and (done == self.of or self.count >= NAMED):
            expected = "whole files, or a larger share allowed"
            raise UserError("data.max_undecodable", self.describe(done), value=share, expected=expected)


def write_part(
    path: Path, part: Part, side: int, bad: Undecodable, advance: Callable[[int], None], whole: bool = False
) -> tuple[int, str, int]:
    """Decode `part` into the Arrow file `path`. Returns (number of images, fingerprint, CRC of the labels).

    With `whole`, pictures are squeezed to a square, and the file also has their aspect ratios; fingerprint
    and CRC include them. `bad` collects undecodable pictures. `advance(n)` is called in this thread after
    every n samples. Memory use is one chunk and a few groups of decoded images, for parts of any size.
    """
    image, crc = pa.field("image", pa.binary(3 * side * side)), pa.field("crc", pa.uint32())
    aspect = [pa.field("aspect", pa.float32())] if whole else []
    schema = pa.schema([image, pa.field("label", pa.int64()), crc, *aspect])
    chunk = np.empty((max(1, min(CHUNK_BYTES // (3 * side * side), part.count)), 3, side, side), np.uint8)
    digest, labels, aspects, start = hashlib.sha256(), array("q"), array("f"), 0

    with opened(path, "wb") as file:
        with pa.ipc.new_file(file, schema) as writer:

            def flush() -> None:
                nonlocal start
                filled = chunk[: len(labels) - start]
                if not len(filled):
                    return
                digest.update(filled.data)
                pixels = pa.FixedSizeBinaryArray.from_buffers(
                    image.type, len(filled), [None, pa.py_buffer(filled)]
                )
                label = pa.array(np.array(labels[start:], np.int64))
                crcs = pa.array([zlib.crc32(one.data) for one in filled], pa.uint32())
                shapes = [pa.array(np.array(aspects[start:], np.float32))] if whole else []
                writer.write_batch(pa.record_batch([pixels, label, crcs, *shapes], schema=schema))
                start = len(labels)

            for group in _decoded(part.samples(), side, whole):
                for sample, result in group:
                    if isinstance(result, str):
                        bad.add(f"{sample} ({result})")
                        continue
                    pixels, shape, label = result
                    chunk[len(labels) - start] = pixels
                    labels.append(label)
                    if whole:
                        aspects.append(shape)
                    if len(labels) - start == len(chunk):
                        flush()
                advance(len(group))
            flush()
        file.flush()
        os.fsync(file.fileno())
    beside = labels.tobytes() + aspects.tobytes()
    digest.update(beside)
    return len(labels), digest.hexdigest(), zlib.crc32(beside)


# (name, (pixels, aspect ratio, label)), or (name, error)
Decoded = tuple[str, tuple[Pixels, float, int] | str]


def _decoded(samples: Iterator[Sample], side: int, whole: bool) -> Iterator[list[Decoded]]:
    """Groups of decoded samples, in order. At most a few groups for each thread are in memory."""
    threads = min(16, int(cpus().value))
    pending: deque[Future[list[Decoded]]] = deque()
    with ThreadPoolExecutor(threads, thread_name_prefix="decode") as pool:
        try:
            for group in _groups(samples):
                pending.append(pool.submit(_decode_group, group, side, whole))
                if len(pending) > 2 * threads:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        finally:
            pool.shutdown(cancel_futures=True)


def _decode_group(group: list[Sample], side: int, whole: bool) -> list[Decoded]:
    return [(sample.name, _decode_one(sample, side, whole)) for sample in group]


def _decode_one(sample: Sample, side: int, whole: bool) -> tuple[Pixels, float, int] | str:
    try:
        if whole:
            return *decode_whole(sample.picture, side), sample.label
        return decode(sample.picture, side), 1.0, sample.label
    except MemoryError:
        raise
    except Exception as error:  # Pillow's plugins raise nearly anything for a broken file
        return f"{type(error).__name__}: {error}"


def _groups(items: Iterable[T]) -> Iterator[list[T]]:
    iterator = iter(items)
    while group := list(itertools.islice(iterator, GROUP)):
        yield group
