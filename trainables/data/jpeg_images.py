"""Reading one part of a store of JPEGs: whole pictures, decoded by several threads on demand."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import torch

from trainables.data.decode import Pixels
from trainables.data.encode_jpeg import decoded, square
from trainables.data.store_images import Ids, Images

_LEAST = 8  # JPEGs that a thread decodes


class JpegImages(Images):
    """As `Images`, from a file of JPEGs. Any `size` can be asked for.

    With `whole` pictures are squeezed into the squares, and `aspect` has their ratios; else the squares are
    the pictures' middles, and `aspect` is None. `stored` is the SHA-256 of JPEGs and labels. `fingerprint`
    depends on size and shape, too. With `gpu`, `fetch` decodes on the GPU.
    """

    def __init__(
        self, path: Path, classes: int, stored: str, size: int, whole: bool, gpu: bool = False
    ) -> None:
        shape = f"{stored} {size} {'whole' if whole else 'centre'}{' gpu' * gpu}"
        super().__init__(path, size, classes, hashlib.sha256(shape.encode()).hexdigest())
        self._arguments = path, classes, stored, size, whole, gpu
        self.whole, self.gpu = whole, gpu
        if not whole:
            self.aspect = None

    def __reduce__(self) -> tuple[Any, ...]:
        return JpegImages, self._arguments, self._kept

    def _least_a_thread(self) -> int:
        return _LEAST

    def _read(self, ids: Ids, out: torch.Tensor) -> None:
        for i, image in enumerate(ids.tolist()):
            out[i] = square(decoded(self._jpeg(image).tobytes(), self.size), self.size, self.whole)

    def take_on(self, ids: Ids, device: torch.device) -> torch.Tensor:
        """As `take`, decoded by `device`, where the images stay. Decoders of GPUs round in other ways."""
        from torchvision.io import ImageReadMode, decode_jpeg  # deprecated since torchvision 0.29

        self.advise(ids)
        contents = [torch.from_numpy(self._jpeg(image)) for image in ids.tolist()]
        images = decode_jpeg(contents, ImageReadMode.RGB, device=str(device))
        out = torch.empty((len(ids), 3, self.size, self.size), dtype=torch.uint8, device=device)
        for i, image in enumerate(images):
            # CUDA resizes no integers.
            out[i] = square(image.float(), self.size, self.whole).round_().clamp_(0, 255)
        return out

    def _jpeg(self, image: int) -> Pixels:
        """A JPEG, compared with its CRC."""
        content = self._stored(image).copy()  # torchvision wants memory that can be written
        self._check(image, content)
        return content
