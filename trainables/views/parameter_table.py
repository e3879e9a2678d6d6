"""Drawing the parameters of views: one table of numbers for a whole data set.

Every random and every transcendental number of a view is worked out here, for all samples at once, so that
what is left to do with pixels is exact arithmetic (`operations.py`).
"""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import numpy.typing as npt

from trainables.views.recipes import Recipe

Array = npt.NDArray[Any]
Table = dict[str, Array]  # parameter -> one row a sample

JITTER_ORDERS = tuple(itertools.permutations(range(4)))  # of brightness, contrast, saturation, hue
NO_JITTER = 255
BLUR_SIGMA = (0.1, 2.0)
# Streams of random numbers, one an operation: what one draws cannot shift what another gets. Append only.
STREAMS = (
    *("crop", "flip", "jitter", "grayscale", "blur", "affine", "gain", "noise", "erase"),
    *("pad", "solarise"),
)


def draw(
    recipe: Recipe,
    strength: float,
    side: int,
    out: int,
    count: int,
    rng: np.random.Generator,
    aspect: Array | None = None,
) -> Table:
    """The parameters of one view of `count` images of `side` pixels; views have `out` pixels.

    `aspect` (count,): width / height of the pictures that were squeezed into these squares; None: squares.

    Bytes a sample: crop 8, pad 4, flip 1, jitter 17, grayscale 1, blur 4, solarise 1; affine 24, gain 4,
    noise 8, erase 8.
    """
    stream = dict(zip(STREAMS, rng.spawn(len(STREAMS)), strict=True))
    table: Table = {}
    if recipe.crop:
        lost = min(recipe.crop * strength, 0.95)
        table["crop"] = crops(count, side, lost, math.log(4 / 3) * strength, stream["crop"], aspect)
    if recipe.pad:
        border = round(out * recipe.pad * strength)
        table["corner"] = corners(count, side, out, border, stream["pad"])
    if recipe.flip or recipe.crop:
        table["flip"] = stream["flip"].random(count, np.float32) < recipe.flip
    if any(recipe.jitter):
        factors, order = _jitter(recipe, strength, count, stream["jitter"])
        table["factors"], table["order"] = factors, order
    if recipe.grayscale:
        table["grayscale"] = stream["grayscale"].random(count, np.float32) < recipe.grayscale * strength
    if recipe.blur:
        low, high = BLUR_SIGMA
        on = stream["blur"].random(count, np.float32) < recipe.blur
        sigma = low + (high - low) * strength * stream["blur"].random(count, np.float32)
        table["sigma"] = np.where(on, sigma, 0).astype(np.float32)  # 0: not blurred
    if recipe.solarise:
        table["solarise"] = stream["solarise"].random(count, np.float32) < recipe.solarise
    if recipe.warps:
        table["matrix"] = _matrices(recipe, strength, out, count, stream["affine"])
        if aspect is not None:
            table["matrix"] *= np.stack(_unsqueezed(aspect), 1)[:, :, None]
    if aspect is not None and not (recipe.crop or recipe.pad or recipe.warps):
        table |= centre(aspect, side, out)
    if recipe.gain:
        table["gain"] = np.maximum(0, 1 + recipe.gain * strength * _signed(stream["gain"], count))
    if recipe.noise:
        table["noise_key"] = stream["noise"].integers(2**32, size=count, dtype=np.uint32)
        table["noise_sigma"] = recipe.noise * strength * stream["noise"].random(count, np.float32)
    if recipe.erase:
        table["erase"] = _rectangles(recipe.erase * strength, out, count, stream["erase"])
    return table


def crops(
    count: int,
    side: int,
    lost: float,
    log_ratio: float,
    rng: np.random.Generator,
    aspect: Array | None = None,
) -> Array:
    """(count, 4) int16 boxes (top, left, height, width) of torchvision's RandomResizedCrop.

    Area uniform in (1 - lost, 1) of the picture, log(width / height) uniform within +-log_ratio; what does
    not fit is drawn again, ten times at most, then it is the largest centred box within that ratio. Of
    pictures that were squeezed into the square from width / height = `aspect` (count,), area and ratio are
    those before that; None: squares, whose largest box is the whole image.
    """
    box = np.empty((count, 4), np.int16)
    shape = np.ones(count) if aspect is None else aspect.astype(np.float64)
    # A box of ratio r in a picture of ratio a has r / a in the square.
    most = np.exp(np.clip(np.log(shape), -log_ratio, log_ratio)) / shape
    _fill_centred(box, side, np.rint(side * np.minimum(1, 1 / most)), np.rint(side * np.minimum(1, most)))
    todo = np.arange(count)
    for _ in range(10):
        n = len(todo)
        area = side**2 * (1 - lost * rng.random(n))
        ratio = np.exp(log_ratio * _signed(rng, n))
        if aspect is not None:
            ratio = ratio / shape[todo]
        width, height = np.rint(np.sqrt(area * ratio)), np.rint(np.sqrt(area / ratio))
        top, left = (np.floor(rng.random(n) * (side + 1 - edge)) for edge in (height, width))
        fits = (width <= side) & (height <= side) & (width >= 1) & (height >= 1)
        box[todo[fits]] = np.stack([top, left, height, width], axis=1)[fits]
        todo = todo[~fits]
    return box


def corners(count: int, side: int, out: int, border: int, rng: np.random.Generator) -> Array:
    """(count, 2) int16: top and left of crops of `out` pixels from images with a border of so many pixels.

    All places in the image with its border are equally likely, as in torchvision's `RandomCrop(padding=…)`.
    """
    return rng.integers(-border, side + border - out, size=(count, 2), dtype=np.int16, endpoint=True)


def centre(aspect: Array, side: int, kept: int) -> Table:
    """The crop of an evaluation: `kept` pixels in the middle, of a picture with a shorter side of `side`."""
    box = np.empty((len(aspect), 4), np.int16)
    horizontal, vertical = _unsqueezed(aspect)
    _fill_centred(box, side, np.rint(kept * vertical), np.rint(kept * horizontal))
    return {"crop": box, "flip": np.zeros(len(aspect), np.bool_)}


def drawn_in_pixels(table: Table) -> bool:
    """Whether views of this table exist at the size alone that it was drawn for.

    Those of a resized crop exist at any size. What pads or warps takes stored pixels as they are.
    """
    return "crop" not in table or "noise_key" in table or "erase" in table


def at_size(table: Table, drawn_for: int, out: int, interpolation: str) -> Table:
    """The same views with `out` pixels; the table was drawn for so many, and is not `drawn_in_pixels`."""
    made = {**table, "sigma": table["sigma"] * np.float32(out / drawn_for)} if "sigma" in table else table
    return as_cubic(made) if interpolation == "bicubic" else made


def as_cubic(table: Table) -> Table:
    """The table with crops that are resized by the bicubic filter."""
    return {**table, "cubic": np.ones(len(table["crop"]), np.bool_)}


def _unsqueezed(aspect: Array) -> tuple[Array, Array]:
    """What a pixel along x and along y is in the square, where the shorter side of the picture is as long."""
    return np.minimum(1, 1 / aspect), np.minimum(1, aspect)


def _fill_centred(box: Array, side: int, height: Array, width: Array) -> None:
    height, width = np.maximum(1, height), np.maximum(1, width)
    box[:] = np.stack([(side - height) // 2, (side - width) // 2, height, width], axis=1)


def edges(box: Array, flip: Array, out: int) -> Array:
    """(B, 4) boxes and (B,) whether they are mirrored -> (B, 7, 2, 1) float64 for `operations.sampling`.

    Along rows, then along columns: start, side, side / out, how far a pixel reaches, the last pixel, and the
    centre of pixel i of the view as sign * i + offset.
    """
    start, side = (box[:, part].astype(np.float64) for part in (slice(2), slice(2, 4)))
    scale = side / out
    mirrored = np.stack([np.zeros(len(flip), np.bool_), flip], axis=1)
    sign, offset = np.where(mirrored, -1.0, 1.0), np.where(mirrored, out - 0.5, 0.5)
    numbers = [start, side, scale, np.maximum(scale, 1), start + side - 1, sign, offset]
    return np.stack(numbers, axis=1)[..., None]


def blur_reach(size: int) -> int:
    """How many pixels a blur reaches to either side: SimCLR's kernel is a tenth of the side."""
    return max(1, size // 20)


def blur_weights(sigma: Array, size: int) -> Array:
    """(B,) standard deviations in pixels -> (B, R + 1) float32: the pixel, and its neighbours at 1 .. R.

    A Gaussian cut at `blur_reach`. By one call of `math.exp` a number: numpy's vectorised exponential may
    depend on a number's place in its array.
    """
    reach = blur_reach(size)
    weights = np.zeros((len(sigma), reach + 1), np.float32)
    for row, s in enumerate(sigma.tolist()):
        taps = [math.exp(-0.5 * (k / s) ** 2) for k in range(reach + 1)]
        total = taps[0] + 2 * math.fsum(taps[1:])
        # Below 1e-8 a tap cannot be seen in a float32 pixel, and would cost a pass (denormals a slow one).
        weights[row] = [tap / total if tap > 1e-8 * total else 0.0 for tap in taps]
    return weights[:, : max(2, int(np.flatnonzero(weights.any(axis=0))[-1]) + 1)]


def _jitter(recipe: Recipe, strength: float, count: int, rng: np.random.Generator) -> tuple[Array, Array]:
    """(count, 4) factors, and (count,) which of the 24 orders, or NO_JITTER."""
    on = rng.random(count, np.float32) < recipe.jitter_probability
    order = np.where(on, rng.integers(len(JITTER_ORDERS), size=count, dtype=np.uint8), NO_JITTER)
    spread = np.asarray(recipe.jitter, np.float32) * np.float32(strength)
    factors = np.empty((count, 4), np.float32)
    for i, low in enumerate((1 - spread[:3]).clip(0).tolist()):
        factors[:, i] = low + (1 + spread[i] - low) * rng.random(count, np.float32)
    factors[:, 3] = min(spread[3], 0.5) * _signed(rng, count)
    return factors, order.astype(np.uint8)


def _matrices(recipe: Recipe, strength: float, out: int, count: int, rng: np.random.Generator) -> Array:
    """(count, 2, 3) float32: from output to input pixels."""
    limits = (recipe.rotate, recipe.shear, recipe.shear)
    angle, *shear = (np.radians(limit * strength) * _signed(rng, count) for limit in limits)
    scale = np.maximum(0.1, 1 + recipe.scale * strength * _signed(rng, count))
    shift = [recipe.shift * strength * out * _signed(rng, count) for _ in range(2)]
    return inverse_affine(angle, shift, scale, shear)


def inverse_affine(angle: Array, shift: list[Array], scale: Array, shear: list[Array]) -> Array:
    """(n, 2, 3) float32, the inverse of: shear along x, along y, scale, rotate, shift; about the centre.

    (n,) angles and shears (x, y) in radians, shifts (x, y) in pixels. The order of torchvision's `affine`.
    """
    (tx, ty), (sx, sy) = shift, shear
    cos, sin, tan = np.cos(angle - sy) / np.cos(sy), np.sin(angle - sy) / np.cos(sy), np.tan(sx)
    a, b, c, d = cos, -cos * tan - np.sin(angle), sin, -sin * tan + np.cos(angle)
    rows = [[d, -b, b * ty - d * tx], [-c, a, c * tx - a * ty]]
    matrix = np.stack([np.stack(row, -1) for row in rows], -2) / scale[:, None, None]
    return matrix.astype(np.float32)


def _rectangles(largest: float, out: int, count: int, rng: np.random.Generator) -> Array:
    """(count, 4) int16 boxes (top, left, height, width) within (out, out); half of them empty."""
    on = rng.random(count, np.float32) < 0.5
    largest = min(largest, 1.0)
    height, width = (np.rint(out * largest * (0.3 + 0.7 * rng.random(count, np.float32))) for _ in range(2))
    top, left = (np.floor(rng.random(count) * (out + 1 - edge)) for edge in (height, width))
    return np.where(on[:, None], np.stack([top, left, height, width], axis=1), 0).astype(np.int16)


def _signed(rng: np.random.Generator, count: int) -> Array:
    """(count,) float32, uniform in -1 .. 1."""
    return 2 * rng.random(count, np.float32) - 1
