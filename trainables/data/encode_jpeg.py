"""From a picture in any common format to a JPEG of limited size, and from that to a square of pixels."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from trainables.data.decode import opened_picture, rgb, upright
from trainables.data.sources.base import Picture

QUALITY = 90  # of the JPEGs in a store, as libjpeg counts; colours have half the resolution


def as_jpeg(picture: Picture, short_side: int) -> tuple[bytes, float]:
    """A whole picture as JPEG with a shorter side of at most `short_side`, and its width / height.

    Smaller pictures keep their size. A JPEG that is small enough keeps its bytes: it loses nothing. The EXIF
    orientation is applied. Raises Pillow's errors for a file that is not a whole picture, and `ValueError`
    for pixels without a known white.
    """
    if isinstance(picture, Image.Image):
        return _encoded(rgb(picture), short_side)
    with opened_picture(picture) as image:
        small = min(image.size) <= short_side
        image.draft("RGB", (2 * short_side, 2 * short_side))
        image.load()
        pixels = rgb(image)
        turned = upright(pixels, image)
        if small and image.format == "JPEG" and turned is pixels:
            content = picture.read_bytes() if isinstance(picture, Path) else picture
            return content, image.width / image.height
        return _encoded(turned, short_side)


def _encoded(image: Image.Image, short_side: int) -> tuple[bytes, float]:
    width, height = image.size
    scale = short_side / min(width, height)
    if scale < 1:
        size = max(1, round(height * scale)), max(1, round(width * scale))
        pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1)
        image = Image.fromarray(resized(pixels, size).permute(1, 2, 0).contiguous().numpy())
    file = io.BytesIO()
    image.save(file, "JPEG", quality=QUALITY)
    return file.getvalue(), width / height


def decoded(content: bytes, side: int) -> Tensor:
    """The pixels (3, H, W) of a JPEG, uint8, for squares of `side`; large ones at a reduced scale.

    By Pillow, because torchvision 0.29 has announced the end of its decoders; both use libjpeg-turbo.
    """
    with opened_picture(content) as image:
        image.draft("RGB", (2 * side, 2 * side))
        return torch.from_numpy(np.array(rgb(image))).permute(2, 0, 1)


def square(image: Tensor, side: int, whole: bool) -> Tensor:
    """(3, H, W) -> (3, side, side): the square in the middle or, with `whole`, the image squeezed."""
    height, width = image.shape[1:]
    if not whole and height != width:
        short = min(height, width)
        top, left = (height - short) // 2, (width - short) // 2
        image = image[:, top : top + short, left : left + short]
    return resized(image, (side, side))


def resized(image: Tensor, size: tuple[int, int]) -> Tensor:
    """(3, H, W) -> (3, *size), by the antialiased bilinear filter, of uint8 in integers."""
    if tuple(image.shape[1:]) == size:
        return image
    return torch.nn.functional.interpolate(image[None], size, mode="bilinear", antialias=True)[0]
