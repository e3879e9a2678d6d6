"""Writing one part of a data set: converting in a thread pool, in order, resumable, with constant memory."""

from __future__ import annotations

import hashlib
import itertools
import zlib
from array import array
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
import pyarrow as pa

from trainables.core.errors import UserError
from trainables.core.limits import cpus
from trainables.core.threads import compute_alone
from trainables.data.resumable_file import ResumableFile
from trainables.data.sources.base import Part, Sample
from trainables.data.store_kinds import Converted, Kind

CHUNK_BYTES = 32 << 20  # images of one Arrow record batch
GROUP = 32  # pictures that one call of the pool converts; single small pictures would cost mostly overhead
GROUP_BYTES = 1 << 20  # of a group of large images, of which several a thread are in memory
NAMED = 10  # undecodable pictures that a message names
T = TypeVar("T")


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


class _Batch:
    """The images that the next record batch will hold."""

    def __init__(self, kind: Kind, count: int) -> None:
        self.rows, self.contents = kind.rows(count, CHUNK_BYTES), list[bytes]()
        self.labels, self.aspects = array("q"), array("f")
        self._bytes = 0

    def add(self, image: Converted, label: int) -> None:
        self.contents.append(image.content)
        self.labels.append(label)
        self.aspects.append(image.aspect)
        self._bytes += len(image.content)

    @property
    def full(self) -> bool:
        return len(self.contents) == self.rows or self._bytes >= CHUNK_BYTES


def write_part(
    path: Path, part: Part, kind: Kind, bad: Undecodable, advance: Callable[[int], None]
) -> tuple[int, str, int]:
    """Convert `part` into the Arrow file `path`. Returns (number of images, fingerprint, CRC of the labels).

    With aspect ratios, fingerprint and CRC include them. `bad` collects undecodable pictures. `advance(n)` is
    called in this thread after every n samples. Memory use is one chunk and a few groups of converted images,
    for parts of any size. A file that a killed process left is continued: see `resumable_file.py`.
    """
    fields = [pa.field("image", kind.image_type), pa.field("label", pa.int64()), pa.field("crc", pa.uint32())]
    schema = pa.schema(fields + [pa.field("aspect", pa.float32())] * kind.has_aspect)
    digest, labels, aspects, tried = hashlib.sha256(), array("q"), array("f"), 0

    with closing(ResumableFile(path)) as file:
        with pa.ipc.new_file(file, schema) as writer:
            for note, old in zip(file.found, file.whole_batches(), strict=True):
                writer.write_batch(old)
                digest.update(kind.content_of(old))
                labels.frombytes(old.column("label").to_numpy().tobytes())
                if kind.has_aspect:
                    aspects.frombytes(old.column("aspect").to_numpy().tobytes())
                bad.count, bad.first = note["undecodable"]["count"], note["undecodable"]["first"]
                advance(note["tried"] - tried)
                tried = note["tried"]

            def flush(batch: _Batch) -> None:
                images, joined = kind.arrays(batch.contents)
                digest.update(joined)
                crcs = pa.array(map(zlib.crc32, batch.contents), pa.uint32())
                columns = [images, pa.array(np.array(batch.labels, np.int64)), crcs]
                if kind.has_aspect:
                    columns.append(pa.array(np.array(batch.aspects, np.float32)))
                    aspects.extend(batch.aspects)
                labels.extend(batch.labels)
                writer.write_batch(pa.record_batch(columns, schema=schema))
                file.note({"tried": tried, "undecodable": asdict(bad)})

            batch = _Batch(kind, part.count)
            for group in _converted(itertools.islice(part.samples(), tried, None), kind):
                for name, result in group:
                    tried += 1
                    if isinstance(result, str):
                        bad.add(f"{name} ({result})")
                        continue
                    batch.add(*result)
                    if batch.full:
                        flush(batch)
                        batch = _Batch(kind, part.count)
                advance(len(group))
            if batch.contents:
                flush(batch)
        file.finish()
    beside = labels.tobytes() + aspects.tobytes()
    digest.update(beside)
    return len(labels), digest.hexdigest(), zlib.crc32(beside)


# (name, (image, label)), or (name, error)
Result = tuple[str, tuple[Converted, int] | str]


def _converted(samples: Iterator[Sample], kind: Kind) -> Iterator[list[Result]]:
    """Groups of converted samples, in order. At most a few groups for each thread are in memory."""
    threads = int(cpus().value)
    pending: deque[Future[list[Result]]] = deque()
    with ThreadPoolExecutor(threads, thread_name_prefix="decode", initializer=compute_alone) as pool:
        try:
            for group in _groups(samples, max(1, min(GROUP, GROUP_BYTES // kind.bytes_each))):
                pending.append(pool.submit(_convert_group, group, kind))
                if len(pending) > 2 * threads:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        finally:
            pool.shutdown(cancel_futures=True)


def _convert_group(group: list[Sample], kind: Kind) -> list[Result]:
    return [(sample.name, _convert(sample, kind)) for sample in group]


def _convert(sample: Sample, kind: Kind) -> tuple[Converted, int] | str:
    try:
        return kind.convert(sample.picture), sample.label
    except MemoryError:
        raise
    except Exception as error:  # Pillow's plugins raise nearly anything for a broken file
        return f"{type(error).__name__}: {error}"


def _groups(items: Iterable[T], size: int) -> Iterator[list[T]]:
    iterator = iter(items)
    while group := list(itertools.islice(iterator, size)):
        yield group
