"""From a picture in any common format to a square of uint8 pixels."""

from __future__ import annotations

import io
import stat
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import numpy as np
import numpy.typing as npt
from PIL import Image
from PIL.ImageFile import ImageFile

from trainables.data.sources.base import Picture

T = TypeVar("T")
Pixels = npt.NDArray[np.uint8]

_ORIENTATION = 0x0112  # the EXIF tag
_BITS_PER_SAMPLE, _PHOTOMETRIC, _SAMPLE_FORMAT = 258, 262, 339  # TIFF tags
_WHITE_IS_ZERO, _SIGNED = 0, 2  # values of the second and the third
_FULL_RANGE = (None, "PNG", "PPM", "TIFF", "JPEG2000")  # formats whose 16-bit grey has a known white
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def decode(picture: Picture, side: int) -> Pixels:
    """(3, side, side) RGB: the largest centred square, resized with an antialiased bilinear filter.

    The result is that of resizing the shorter side and cropping the centre, in one step. Large JPEGs are
    decoded at a reduced scale of at least twice `side`. The EXIF orientation is applied; of several frames
    the first one is used. `rgb` describes the conversion of Pillow's modes. Raises Pillow's errors for a
    file that is not a whole picture, and `ValueError` for pixels without a known white.
    """
    return _read(picture, side, _square)


def decode_whole(picture: Picture, side: int) -> tuple[Pixels, float]:
    """The whole picture resized to (3, side, side) without keeping its ratio, and its width / height.

    Otherwise as `decode`; for a square picture the pixels are the same.
    """
    return _read(picture, side, _squeezed)


def _read(picture: Picture, side: int, fit: Callable[[Image.Image, int], T]) -> T:
    if isinstance(picture, Image.Image):
        return fit(rgb(picture), side)
    with opened_picture(picture) as image:
        image.draft("RGB", (2 * side, 2 * side))
        image.load()
        return fit(upright(rgb(image), image), side)


def opened_picture(picture: Path | bytes) -> ImageFile:
    """A picture's file, open; its pixels are not read yet. `OSError` for what is no regular file."""
    if isinstance(picture, Path) and not stat.S_ISREG(picture.stat().st_mode):
        raise OSError("is no regular file")  # opening a pipe would wait
    return Image.open(io.BytesIO(picture) if isinstance(picture, bytes) else picture)


def upright(pixels: Image.Image, image: Image.Image) -> Image.Image:
    """Apply the EXIF orientation of `image` to `pixels`. Pillow has done so for a TIFF."""
    try:
        turn = _UPRIGHT.get(image.getexif().get(_ORIENTATION, 1))
    except Exception:  # the EXIF block is broken, the pixels are not
        return pixels
    return pixels if turn is None else pixels.transpose(turn)


def rgb(image: Image.Image) -> Image.Image:
    """The image as RGB.

    Transparency is dropped and the colour below it kept. Of grey with up to 16 bits the upper 8 are kept: a
    TIFF says how many bits there are, Pillow scales all other formats to 16. Other grey (32-bit integers,
    signed or floating-point numbers) has no known white and is refused, as is CIELAB.
    """
    if image.mode == "RGB":
        return image
    deep = image.mode.startswith("I;16") or (image.mode == "I" and image.format in ("PNG", "PPM"))
    if deep and image.format in _FULL_RANGE:
        return _deep_grey(image).convert("RGB")
    signed = _SIGNED in getattr(image, "tag_v2", {}).get(_SAMPLE_FORMAT, ())
    if signed or image.mode in ("F", "LAB") or image.mode.startswith("I"):
        kind = {"F": "floating-point grey", "LAB": "CIELAB"}.get(image.mode, "grey of 32 bits or with a sign")
        raise ValueError(f"{kind} cannot be read (mode {image.mode}): save it as unsigned, of 8 or 16 bits")
    if image.mode in ("La", "RGBa"):  # colours multiplied by their opacity
        return image.convert(image.mode.upper()).convert("RGB")
    return image.convert("RGBA" if "transparency" in image.info else "RGB").convert("RGB")


def _deep_grey(image: Image.Image) -> Image.Image:
    """Grey of 9 to 16 bits -> its upper 8 bits, mode L."""
    tags = getattr(image, "tag_v2", {})  # of a TIFF
    bits = tags.get(_BITS_PER_SAMPLE, (16,))[0]
    grey = (np.asarray(image).astype(np.int64) >> (bits - 8)).clip(0, 255).astype(np.uint8)
    return Image.fromarray(255 - grey if tags.get(_PHOTOMETRIC) == _WHITE_IS_ZERO else grey)


def _square(image: Image.Image, side: int) -> Pixels:
    if image.size != (side, side):
        width, height = image.size
        short = min(width, height)
        left, top = (width - short) / 2, (height - short) / 2
        image = image.resize(
            (side, side), Image.Resampling.BILINEAR, box=(left, top, left + short, top + short)
        )
    return _channels_first(image)


def _squeezed(image: Image.Image, side: int) -> tuple[Pixels, float]:
    image = rgb(image)
    aspect = image.width / image.height
    if image.size != (side, side):
        image = image.resize((side, side), Image.Resampling.BILINEAR)
    return _channels_first(image), aspect


def _channels_first(image: Image.Image) -> Pixels:
    return np.ascontiguousarray(np.asarray(image).transpose(2, 0, 1))
