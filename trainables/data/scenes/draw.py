"""One scene: digits of random size, place and colour on a smooth dark ground; later cover earlier ones."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image

MOST = 6  # digits of a scene
SMALLEST_SIDE = 32  # of a scene, pixels
_TRIES = 10  # places for a digit; where none leaves the others visible, the scene goes without it
_VISIBLE = 0.7  # the share of the pixels of a digit that the others leave visible
_INK = 128  # of 255: from here on a pixel belongs to the digit
_GROUND, _LIGHT = (0, 96), (144, 256)  # colours of the ground, and of digits

Pixels = npt.NDArray[np.uint8]
Mask = npt.NDArray[np.bool_]


class Glyph(NamedTuple):
    """A picture of one digit, light on dark."""

    pixels: Pixels  # (h, w)
    digit: int


class Instance(NamedTuple):
    """A digit of a scene, and where it can be seen."""

    digit: int
    mask: Mask  # (S, S), never empty


class Scene(NamedTuple):
    """A picture and what is in it."""

    pixels: Pixels  # (S, S, 3)
    instances: list[Instance]


def draw_scene(glyphs: Sequence[Glyph], side: int, rng: np.random.Generator) -> Scene:
    """A scene of `side` (at least `SMALLEST_SIDE`) x `side` pixels with one to `MOST` of `glyphs`.

    Digits have sides of a sixth to a half of the scene's. At least 70 % of each digit can be seen. All
    arithmetic is in whole numbers, so that a generator's state means the same pixels on every machine.
    """
    ground = Image.fromarray(rng.integers(*_GROUND, (4, 4, 3), dtype=np.uint8))
    pixels = np.asarray(ground.resize((side, side), Image.Resampling.BILINEAR)).astype(np.int32)
    whole: list[int] = []  # pixels of each digit, those that others cover too
    seen: list[Instance] = []
    for _ in range(rng.integers(1, MOST + 1)):
        glyph = glyphs[int(rng.integers(len(glyphs)))]
        alpha = _opacity(glyph.pixels, int(rng.integers(max(side // 6, 8), side // 2 + 1)))
        colour = rng.integers(*_LIGHT, 3)
        ink = alpha >= _INK
        for top, left in rng.integers(0, side - len(alpha) + 1, (_TRIES, 2)):
            place = np.s_[top : top + len(alpha), left : left + len(alpha)]
            here = np.zeros((side, side), np.bool_)
            here[place] = ink
            left_over = [one._replace(mask=one.mask & ~here) for one in seen]
            if all(one.mask.sum() >= _VISIBLE * size for one, size in zip(left_over, whole, strict=True)):
                mixed = alpha[..., None] * colour + (255 - alpha[..., None]) * pixels[place]
                pixels[place] = (mixed + 127) // 255
                seen = [*left_over, Instance(glyph.digit, here)]
                whole.append(int(ink.sum()))
                break
    return Scene(pixels.astype(np.uint8), seen)


def _opacity(glyph: Pixels, side: int) -> npt.NDArray[np.int32]:
    """The glyph in `side` x `side` pixels, 255 where it is lightest."""
    resized = Image.fromarray(glyph).resize((side, side), Image.Resampling.BILINEAR)
    alpha: npt.NDArray[np.int32] = np.asarray(resized).astype(np.int32)
    return alpha * 255 // int(alpha.max())
