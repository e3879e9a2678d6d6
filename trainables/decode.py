"""A picture in any common format -> a square of uint8 pixels."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from trainables.sources.base import Picture


def decode(picture: Picture, side: int) -> npt.NDArray[np.uint8]:
    """(3, side, side) RGB: the largest centred square, resized with an antialiased bilinear filter.

    The same picture as resizing the shorter side and cropping the centre, in one step. Large JPEGs are
    decoded at a reduced scale of at least twice `side`. Transparency is dropped, 16-bit grey scaled to 8.
    Raises whatever Pillow raises for a file that is not a whole picture.
    """
    if isinstance(picture, Image.Image):
        return _square(picture, side)
    with Image.open(io.BytesIO(picture) if isinstance(picture, bytes) else Path(picture)) as image:
        image.draft("RGB", (2 * side, 2 * side))
        return _square(image, side)


def _square(image: Image.Image, side: int) -> npt.NDArray[np.uint8]:
    if image.mode.startswith("I;16"):
        image = Image.fromarray((np.asarray(image).astype(np.uint16) >> 8).astype(np.uint8))
    if image.mode != "RGB":
        image = image.convert("RGBA" if "transparency" in image.info else "RGB").convert("RGB")
    if image.size != (side, side):
        width, height = image.size
        short = min(width, height)
        left, top = (width - short) / 2, (height - short) / 2
        image = image.resize(
            (side, side), Image.Resampling.BILINEAR, box=(left, top, left + short, top + short)
        )
    return np.ascontiguousarray(np.asarray(image).transpose(2, 0, 1))
