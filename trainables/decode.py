"""A picture in any common format -> a square of uint8 pixels."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import numpy as np
import numpy.typing as npt
from PIL import Image

from trainables.sources.base import Picture

T = TypeVar("T")
Pixels = npt.NDArray[np.uint8]


def decode(picture: Picture, side: int) -> Pixels:
    """(3, side, side) RGB: the largest centred square, resized with an antialiased bilinear filter.

    The same picture as resizing the shorter side and cropping the centre, in one step. Large JPEGs are
    decoded at a reduced scale of at least twice `side`. Transparency is dropped, 16-bit grey scaled to 8.
    Raises whatever Pillow raises for a file that is not a whole picture.
    """
    return _read(picture, side, _square)


def decode_whole(picture: Picture, side: int) -> tuple[Pixels, float]:
    """All of a picture squeezed into (3, side, side), and its width as a multiple of its height.

    Otherwise as `decode`; of a square the same pixels.
    """
    return _read(picture, side, _squeezed)


def _read(picture: Picture, side: int, fit: Callable[[Image.Image, int], T]) -> T:
    if isinstance(picture, Image.Image):
        return fit(picture, side)
    with Image.open(io.BytesIO(picture) if isinstance(picture, bytes) else Path(picture)) as image:
        image.draft("RGB", (2 * side, 2 * side))
        return fit(image, side)


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I;16"):
        image = Image.fromarray((np.asarray(image).astype(np.uint16) >> 8).astype(np.uint8))
    if image.mode != "RGB":
        image = image.convert("RGBA" if "transparency" in image.info else "RGB").convert("RGB")
    return image


def _square(image: Image.Image, side: int) -> Pixels:
    image = _rgb(image)
    if image.size != (side, side):
        width, height = image.size
        short = min(width, height)
        left, top = (width - short) / 2, (height - short) / 2
        image = image.resize(
            (side, side), Image.Resampling.BILINEAR, box=(left, top, left + short, top + short)
        )
    return _channels_first(image)


def _squeezed(image: Image.Image, side: int) -> tuple[Pixels, float]:
    image = _rgb(image)
    aspect = image.width / image.height
    if image.size != (side, side):
        image = image.resize((side, side), Image.Resampling.BILINEAR)
    return _channels_first(image), aspect


def _channels_first(image: Image.Image) -> Pixels:
    return np.ascontiguousarray(np.asarray(image).transpose(2, 0, 1))
