"""Views where each operation works on the samples that have it, and on no others: what is fastest on CPUs.

Threads share a batch, and each works through its part in small pieces. `masked.py` computes the same numbers
for GPUs.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from trainables.core.threads import in_threads
from trainables.views import operations as ops
from trainables.views.jitter_places import (
    BRIGHTNESS,
    CONTRAST,
    HUE,
    IDLE,
    SATURATION,
    blends_of,
    hues_of,
)
from trainables.views.parameter_table import NO_JITTER, Array, Table, blur_weights, edges

# Values of a piece: more of them cost fewer calls, fewer stay nearer to the core. Of large images a piece is
# one: its crop reads no rows beyond its own box. Chosen by `benchmarks/input.py` with one and two threads.
PIECE, LARGE = 12 * 224**2, 160


def grouped_views(images: Tensor, own: Table, out: int) -> Tensor:
    """(B, 3, S, S) uint8 -> (B, 3, out, out) float32, normalised; `own` holds a row a sample."""
    views = torch.empty((len(images), 3, out, out), dtype=torch.float32)
    piece = max(1, PIECE // (3 * out**2)) if out < LARGE else 1

    def make(part: slice) -> None:
        rows = {name: values[part] for name, values in own.items()}
        _make(images[part], rows, views[part], piece)

    in_threads(make, len(images), piece)
    return views


def _make(images: Tensor, own: Table, views: Tensor, piece: int) -> None:
    """Fill `views` from these images, `piece` of them at a time."""
    out = views.shape[3]
    crops = _crops(own, out) if "crop" in own and len(images) else None
    for start in range(0, len(images), piece):
        part = slice(start, start + piece)
        rows = {name: values[part] for name, values in own.items()}
        x = _placed(images[part], rows, out) if crops is None else _cropped(images[part], rows, crops, part)
        ops.normalise(_coloured(x, rows, out), out=views[part])


def _crops(own: Table, out: int) -> tuple[Tensor, Tensor, Array]:
    """Weights and positions of all samples, and (B, 2) how many taps each needs along rows and columns."""
    cubic = "cubic" in own
    needed = np.array(
        [[ops.taps_of(side, out, cubic) for side in box] for box in own["crop"][:, 2:].tolist()]
    )
    numbers = (np.arange(count, dtype=np.float64) for count in (out, needed.max()))
    pixels, tap = (_on(values) for values in numbers)
    weights, positions = ops.sampling(_on(edges(own["crop"], own["flip"], out)), pixels, tap[:, None], cubic)
    return weights, positions, needed


def _cropped(images: Tensor, own: Table, crops: tuple[Tensor, Tensor, Array], part: slice) -> Tensor:
    weights, positions, needed = crops
    # Only what one of the boxes holds: a single image's rows are as short as its box.
    box = own["crop"].astype(np.int64)
    (top, left), (bottom, right) = box[:, :2].min(0).tolist(), (box[:, :2] + box[:, 2:]).max(0).tolist()
    inside = positions[part] - torch.tensor([top, left]).view(2, 1, 1)
    taps = needed[part].max(0).tolist()
    x = ops.resized_crop(images[:, :, top:bottom, left:right], weights[part], inside, taps)
    return x.clamp_(0, 1) if "cubic" in own else x


def _placed(images: Tensor, own: Table, out: int) -> Tensor:
    if "corner" in own:
        corner = _on(own["corner"].astype(np.int64))
        x = ops.to_unit(ops.window(images, corner, out))
    elif "matrix" in own:
        x = ops.affine(ops.to_unit(images), _on(own["matrix"]), out)
    else:
        x = ops.to_unit(ops.centre_crop(images, out))
    return ops.mirrored(x, _on(own["flip"])) if "flip" in own else x


def _coloured(x: Tensor, own: Table, out: int) -> Tensor:
    if "order" in own:
        x = _where(x, own["order"] != NO_JITTER, _jittered, own["order"], own["factors"])
    if "grayscale" in own:
        x = _where(x, own["grayscale"], ops.grayscale)
    if "sigma" in own:
        x = _where(x, own["sigma"] > 0, _blurred, own["sigma"])
    if "solarise" in own:
        x = _where(x, own["solarise"], ops.solarise)
    if "gain" in own:
        x = ops.brightness(x, _on(own["gain"]))
    if "noise_key" in own:
        key, sigma = _on(own["noise_key"].astype(np.int64)), _on(own["noise_sigma"])
        x = ops.add_noise(x, key, sigma)
    if "erase" in own:
        x = ops.erase(x, _on(own["erase"].astype(np.int64)))
    return x


def _where(x: Tensor, on: npt.NDArray[np.bool_], op: Callable[..., Tensor], *parameters: Array) -> Tensor:
    """`op` with its parameters on the samples where `on`, the others as they are."""
    if on.all():
        return op(x, *parameters)
    if not on.any():
        return x
    index = _on(np.flatnonzero(on))
    return x.index_copy_(0, index, op(x.index_select(0, index), *(values[on] for values in parameters)))


def _jittered(x: Tensor, order: Array, factors: Array) -> Tensor:
    """Brightness, contrast, saturation and hue, in each sample's own order."""
    which, factor = blends_of(order, factors)
    turned, shift = hues_of(order), factors[:, HUE]
    x = _where(x, which[0] != IDLE, _blended, which[0], factor[0])
    x = _where(x, turned[0], _turned, shift)
    x = _blended(_blended(x, which[1], factor[1]), which[2], factor[2])
    x = _where(x, turned[1], _turned, shift)
    return _blended(x, which[3], factor[3])


def _blended(x: Tensor, which: Array, factor: Array) -> Tensor:
    kinds = set(which.tolist())
    if kinds == {IDLE}:
        return x
    for kind, op in ((BRIGHTNESS, ops.brightness), (CONTRAST, ops.contrast), (SATURATION, ops.saturation)):
        if kinds == {kind}:
            return op(x, _on(factor))
    other = 1 - factor
    colour, level = (np.where(which == kind, other, np.float32(0)) for kind in (SATURATION, CONTRAST))
    return ops.blend(x, _on(factor), _on(colour), _on(level))


def _turned(x: Tensor, shift: Array) -> Tensor:
    return ops.hue(x, _on(shift))


def _blurred(x: Tensor, sigma: Array) -> Tensor:
    return ops.blur(x, _on(blur_weights(sigma, x.shape[2])))


def _on(values: Array) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(values))
