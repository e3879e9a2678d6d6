"""Reading one part of a store of JPEGs: whole pictures, decoded by several threads on demand."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import torch

from trainables.data.encode_jpeg import decoded, square
from trainables.data.store_images import Ids, Images

_LEAST = 8  # JPEGs that a thread decodes


class JpegImages(Images):
    """As `Images`, from a file of JPEGs. Any `size` can be asked for.

    With `whole` pictures are squeezed into the squares, and `aspect` has their ratios; else the squares are
    the pictures' middles, and `aspect` is None. `stored` is the SHA-256 of JPEGs and labels. `fingerprint`
    depends on size and shape, too.
    """

    def __init__(self, path: Path, classes: int, stored: str, size: int, whole: bool) -> None:
        shape = f"{stored} {size} {'whole' if whole else 'centre'}"
        super().__init__(path, size, classes, hashlib.sha256(shape.encode()).hexdigest())
        self._arguments = path, classes, stored, size, whole
        self.whole = whole
        if not whole:
            self.aspect = None

    def __reduce__(self) -> tuple[Any, ...]:
        return JpegImages, self._arguments

    def _least_a_thread(self) -> int:
        return _LEAST

    def _read(self, ids: Ids, out: torch.Tensor) -> None:
        for i, image in enumerate(ids.tolist()):
            content = self._stored(image).copy()  # torchvision wants memory that can be written
            self._check(image, content)
            out[i] = square(decoded(content), self.size, self.whole)
