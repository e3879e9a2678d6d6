"""Views where operations are few and the host waits for nothing: what GPUs need.

Every operation works on all samples. Where it is not for a sample, it gets numbers that leave the pixels as
they are, bit for bit, or is masked. So shapes depend on the recipe and the size of the batch alone, and the
function can be compiled. Its bits on a CPU are those of `grouped.py`.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from trainables.views import operations as ops
from trainables.views.jitter_places import CONTRAST, HUE, IDLE, SATURATION, blends_of, hues_of
from trainables.views.parameter_table import (
    NO_JITTER,
    Array,
    Table,
    blur_reach,
    blur_weights,
    edges,
)

_SCALE = 2.0**24  # of luminance, whose mean is a sum of whole numbers: a power of 2 changes no other bit


def columns(own: Table, side: int, out: int) -> dict[str, Array]:
    """What `masked_views` reads, from the rows of a table: one entry a sample, and the constants.

    Images have `side` pixels, views `out`.
    """
    given: dict[str, Array] = {
        "mean": np.array(ops.MEAN, np.float32).reshape(3, 1, 1),
        "std": np.array(ops.STD, np.float32).reshape(3, 1, 1),
    }
    if "crop" in own:
        given["edges"] = edges(own["crop"], own["flip"], out)
        given["pixels"] = np.arange(out, dtype=np.float64)
        given["taps"] = np.arange(ops.taps_of(side, out, "cubic" in own), dtype=np.float64)[:, None]
        if "cubic" in own:
            given["cubic"] = np.array(True)
    elif "flip" in own:
        given["flip"] = own["flip"]
    if "order" in own:
        given |= _jitter_columns(own["order"], own["factors"])
    if "order" in own or "grayscale" in own:
        given["grey"] = np.array(ops.GREY, np.float32).reshape(3, 1, 1)
    if "sigma" in own:
        given |= _blur_columns(own["sigma"], out)
    for name in ("matrix", "gain", "noise_sigma"):
        if name in own:
            given[name] = own[name].astype(np.float32)
    for name in ("corner", "noise_key", "erase"):
        if name in own:
            given[name] = own[name].astype(np.int64)
    for name in ("grayscale", "solarise"):
        if name in own:
            given[name] = own[name].reshape(-1, 1, 1, 1)
    return given


def masked_views(images: Tensor, given: dict[str, Tensor], out: int, views: int) -> Tensor:
    """(B, 3, S, S) uint8 -> (views * B, 3, out, out) float32, normalised: first the first view of all images.

    `given` holds `columns` of views * B samples in that order, on the images' device.
    """
    x = images.repeat(views, 1, 1, 1) if views > 1 else images
    if "edges" in given:
        cubic = "cubic" in given
        weights, positions = ops.sampling(given["edges"], given["pixels"], given["taps"], cubic)
        x = _resampled(x, weights, positions).div_(255)
        x = x.clamp_(0, 1) if cubic else x
    elif "corner" in given:
        x = ops.to_unit(ops.window(x, given["corner"], out))
    elif "matrix" in given:
        x = ops.affine(ops.to_unit(x), given["matrix"], out)
    else:
        x = ops.to_unit(ops.centre_crop(x, out))
    if "flip" in given:
        x = ops.mirrored(x, given["flip"])
    if "keep" in given:
        x = _jittered(x, given)
    if "grayscale" in given:
        x = torch.where(given["grayscale"], _luminance(x, given["grey"]), x)
    if "blur" in given:
        x = _blurred(x, given["blur"], given["mirror"])
    if "solarise" in given:
        x = torch.where(given["solarise"] & (x >= ops.SOLARISE_FROM), 1 - x, x)
    if "gain" in given:
        x = ops.brightness(x, given["gain"])
    if "noise_key" in given:
        x = ops.add_noise(x, given["noise_key"], given["noise_sigma"])
    if "erase" in given:
        x = ops.erase(x, given["erase"])
    return x.sub_(given["mean"]).div_(given["std"])


def _resampled(images: Tensor, weights: Tensor, positions: Tensor) -> Tensor:
    """Weighted sums of rows, then of columns: (B, 3, S, S) uint8 -> (B, 3, out, out) float32 in 0..255."""
    b, c, _, w = images.shape
    taps, out = weights.shape[2:]
    rows = positions[:, 0].reshape(b, 1, taps * out, 1).expand(b, c, taps * out, w)
    terms = images.gather(2, rows) * weights[:, 0].reshape(b, 1, taps * out, 1)
    x = ops.in_order(terms.unflatten(2, (taps, out)).unbind(2))
    places = positions[:, 1].reshape(b, 1, 1, taps * out).expand(b, c, out, taps * out)
    terms = x.gather(3, places).mul_(weights[:, 1].reshape(b, 1, 1, taps * out))
    return ops.in_order(terms.unflatten(3, (taps, out)).unbind(3))


def _luminance(images: Tensor, grey: Tensor) -> Tensor:
    r, g, b = (images * grey).split(1, 1)
    luminance: Tensor = (r + g).add_(b)
    return luminance


# --- jitter -------------------------------------------------------------------------------------------------


def _jitter_columns(order: Array, factors: Array) -> dict[str, Array]:
    """Of each blend x * keep + luminance * colour + mean * level, clamped to low .. high; of each hue, turns.

    Samples are the second axis of the first five (4, B, 1, 1, 1) and of `hue` (2, B, 1, 1, 1).
    """
    on = order != NO_JITTER
    which, factor = blends_of(np.where(on, order, 0), factors)
    which, factor = np.where(on, which, IDLE), np.where(on, factor, np.float32(1))
    other, nothing = (1 - factor) / np.float32(_SCALE), np.float32(0)
    # An idle blend leaves what is not in 0..1.
    made = {
        "keep": factor,
        "colour": np.where(which == SATURATION, other, nothing),
        "level": np.where(which == CONTRAST, other, nothing),
        "low": np.where(which == IDLE, np.float32(-np.inf), nothing),
        "high": np.where(which == IDLE, np.float32(np.inf), np.float32(1)),
        "hue": hues_of(np.where(on, order, 0)) & on,
    }
    given = {name: values.reshape(*values.shape, 1, 1, 1) for name, values in made.items()}
    given["turn"] = (factors[:, HUE] * np.float32(6) + np.float32(6)).reshape(-1, 1, 1, 1)
    given["channel"] = np.array([5, 3, 1], np.float32).reshape(3, 1, 1)
    given["scaled_grey"] = (np.array(ops.GREY, np.float32) * np.float32(_SCALE)).reshape(3, 1, 1)
    return given


def _jittered(x: Tensor, given: dict[str, Tensor]) -> Tensor:
    names = ("keep", "colour", "level", "low", "high")
    blends = list(zip(*(given[name].unbind(0) for name in names), strict=True))
    first, second = given["hue"].unbind(0)
    turn, channel, grey = given["turn"], given["channel"], given["scaled_grey"]
    x = _turned(_blended(x, blends[0], grey), first, turn, channel)
    x = _blended(_blended(x, blends[1], grey), blends[2], grey)
    return _blended(_turned(x, second, turn, channel), blends[3], grey)


def _blended(x: Tensor, numbers: tuple[Tensor, ...], grey: Tensor) -> Tensor:
    keep, colour, level, low, high = numbers
    luminance = _luminance(x, grey)
    # A sum of whole numbers below 2^53 is exact in float64, in any order.
    mean = luminance.trunc().mean((1, 2, 3), keepdim=True, dtype=torch.float64).to(torch.float32)
    other = torch.addcmul(mean.mul_(level), luminance, colour)  # one of the two terms is 0
    return x.mul_(keep).add_(other).clamp_(low, high)


def _turned(x: Tensor, on: Tensor, turn: Tensor, channel: Tensor) -> Tensor:
    """`operations.hue` where `on`."""
    value, which = x.max(1, keepdim=True)  # of equal ones the first
    chroma = value - x.amin(1, keepdim=True)
    around = torch.cat((x, x[:, :2]), 1)
    apart = around[:, 1:4] - around[:, 2:5]  # G - B, B - R, R - G
    sixths = apart.gather(1, which).div_(chroma).nan_to_num_(0.0)  # grey has no hue: 0 / 0
    k = (sixths.add_(which, alpha=2).add_(turn) + channel).remainder_(6)
    fall = torch.minimum(k, 4 - k).clamp_(0, 1)
    return torch.where(on, value - fall.mul_(chroma), x)


# --- blur ---------------------------------------------------------------------------------------------------


def _blur_columns(sigma: Array, out: int) -> dict[str, Array]:
    """(B, R + 1) weights, and (2, R + 1, out) the pixels before and after each at distance 0 .. R."""
    reach = blur_reach(out)
    weights = np.zeros((len(sigma), reach + 1), np.float32)
    weights[:, 0] = 1
    on = sigma > 0
    if on.any():
        found = blur_weights(sigma[on], out)
        weights[on, : found.shape[1]] = found
    weights[:, 0] /= 2  # the pixel is taken twice
    at = np.arange(out)
    pairs = np.abs(np.stack([at - k for k in range(reach + 1)])), np.stack([at + k for k in range(reach + 1)])
    return {"blur": weights, "mirror": out - 1 - np.abs(out - 1 - np.stack(pairs))}


def _blurred(x: Tensor, weights: Tensor, mirror: Tensor) -> Tensor:
    b, reach = weights.shape[0], weights.shape[1]
    before, after = x[:, :, mirror].unbind(2)
    x = ops.in_order(before.add_(after).mul_(weights.view(b, 1, reach, 1, 1)).unbind(2))
    before, after = x[:, :, :, mirror].unbind(3)
    return ops.in_order(before.add_(after).mul_(weights.view(b, 1, 1, reach, 1)).unbind(3))
