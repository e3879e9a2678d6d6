"""The two ways in which a store keeps a picture: `Squares` of raw pixels, and `Jpegs`, whole pictures.

Each says which Arrow type its images have, and converts a picture. Conversion is the costly part of preparing
a data set; it runs in many workers at once.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from trainables.data.decode import decode, decode_whole
from trainables.data.encode_jpeg import QUALITY, as_jpeg
from trainables.data.sources.base import Picture

JPEG_BYTES = 0.3  # a pixel at this quality, about: that of the pictures of benchmarks/prepare.py


class Converted(NamedTuple):
    """A picture as it is kept."""

    content: bytes
    aspect: float  # width / height


@dataclass(frozen=True)
class Squares:
    """Raw RGB pixels, `side` x `side`: the square in a picture's middle or, with `whole`, all of it squeezed.

    Squeezed pictures have an aspect ratio beside them.
    """

    side: int
    whole: bool = False

    @property
    def bytes_each(self) -> int:
        """The size of one image."""
        return 3 * self.side**2

    @property
    def has_aspect(self) -> bool:
        """Whether the store has aspect ratios."""
        return self.whole

    @property
    def image_type(self) -> pa.DataType:
        """The Arrow type of an image."""
        return pa.binary(self.bytes_each)

    def facts(self) -> dict[str, Any]:
        """The entries for `store.json`."""
        return {"side": self.side}

    def rows(self, count: int, chunk_bytes: int) -> int:
        """How many of `count` images one record batch holds."""
        return max(1, min(chunk_bytes // self.bytes_each, count))

    def convert(self, picture: Picture) -> Converted:
        """The pixels (3, side, side). Raises what `decode` raises."""
        if self.whole:
            pixels, aspect = decode_whole(picture, self.side)
            return Converted(pixels.tobytes(), aspect)
        return Converted(decode(picture, self.side).tobytes(), 1.0)

    def arrays(self, contents: list[bytes]) -> tuple[pa.Array, bytes]:
        """The images of a record batch, and their bytes one after another."""
        joined = b"".join(contents)
        buffers = [None, pa.py_buffer(joined)]
        return pa.FixedSizeBinaryArray.from_buffers(self.image_type, len(contents), buffers), joined

    def content_of(self, batch: pa.RecordBatch) -> memoryview:
        """The bytes of a batch's images, one after another, without copying them."""
        return memoryview(batch.column("image").buffers()[1])[: len(batch) * self.bytes_each]


@dataclass(frozen=True)
class Jpegs:
    """Whole pictures as JPEG, reduced to a shorter side of at most `short_side` pixels."""

    short_side: int
    has_aspect = True
    image_type = pa.binary()

    @property
    def bytes_each(self) -> int:
        """The size of one image, about, if no picture is smaller and sides are as 4 to 3."""
        return int(self.short_side**2 * 4 / 3 * JPEG_BYTES)

    def facts(self) -> dict[str, Any]:
        """The entries for `store.json`."""
        return {"keep": "jpeg", "short_side": self.short_side, "quality": QUALITY}

    def rows(self, count: int, chunk_bytes: int) -> int:
        """How many of `count` images one record batch holds at most."""
        return max(1, min(chunk_bytes // 4096, count))

    def convert(self, picture: Picture) -> Converted:
        """The JPEG. Raises what `as_jpeg` raises."""
        return Converted(*as_jpeg(picture, self.short_side))

    def arrays(self, contents: list[bytes]) -> tuple[pa.Array, bytes]:
        """The images of a record batch, and their bytes one after another."""
        joined = b"".join(contents)
        offsets = np.cumsum([0, *map(len, contents)], dtype=np.int32)
        buffers = [None, pa.py_buffer(offsets), pa.py_buffer(joined)]
        return pa.Array.from_buffers(self.image_type, len(contents), buffers), joined

    def content_of(self, batch: pa.RecordBatch) -> memoryview:
        """The bytes of a batch's images, one after another, without copying them."""
        starts, content = batch.column("image").buffers()[1:]
        return memoryview(content)[: int(np.frombuffer(starts, np.int32)[len(batch)])]


Kind = Squares | Jpegs
