"""The views of 2026-11-20, one sample at a time: what every faster computation must equal to the last bit.

    slow_view(table, i, image, 32)      # sample i of an epoch's table of parameters

These are the operations as they were first written, each in float32 and in the order of its formula. They are
not to be changed: trials of older sweeps trained on these bits.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from trainables.views.parameter_table import JITTER_ORDERS, NO_JITTER, Table, blur_weights

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
SOLARISE_FROM = 128 / 255
GREY = (0.2989, 0.587, 0.114)


def slow_views(table: Table, ids: np.ndarray, images: Tensor, out: int) -> Tensor:
    """(B, 3, S, S) uint8 -> (B, 3, out, out) float32, normalised."""
    views = [slow_view(table, int(i), image, out) for i, image in zip(ids, images, strict=True)]
    return torch.stack(views) if views else torch.empty(0, 3, out, out)


def slow_view(table: Table, i: int, image: Tensor, out: int) -> Tensor:
    """The view of one image (3, S, S) by row i of the table."""
    own = {name: values[i : i + 1] for name, values in table.items()}
    p = {
        name: torch.from_numpy(values.astype(np.int64) if values.dtype.kind in "iu" else values.copy())
        for name, values in own.items()
    }
    x = image[None]
    if "crop" in p:
        x = resized_crop(x, p["crop"], p["flip"], out, taps_of(int(p["crop"][0, 2:].max()), out))
    elif "corner" in p:
        x = to_unit(window(x, p["corner"], out))
    elif "matrix" in p:
        x = affine(to_unit(x), p["matrix"], out)
    else:
        x = to_unit(centre_crop(x, out))
    if "flip" in p and "crop" not in p:
        x = mirrored(x, p["flip"])
    if "order" in p and own["order"][0] != NO_JITTER:
        for which in JITTER_ORDERS[own["order"][0]]:
            x = (brightness, contrast, saturation, hue)[which](x, p["factors"][:, which])
    if "grayscale" in p and own["grayscale"][0]:
        x = grayscale(x)
    if "sigma" in p and own["sigma"][0] > 0:
        x = blur(x, torch.from_numpy(blur_weights(own["sigma"], out)))
    if "solarise" in p and own["solarise"][0]:
        x = solarise(x)
    if "gain" in p:
        x = brightness(x, p["gain"])
    if "noise_key" in p:
        x = add_noise(x, p["noise_key"], p["noise_sigma"])
    if "erase" in p:
        x = erase(x, p["erase"])
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (MEAN, STD))
    return x.sub_(mean).div_(std)[0]


def to_unit(images: Tensor) -> Tensor:
    """uint8 -> float32 in 0..1."""
    return images.to(torch.float32).div_(255)


def centre_crop(images: Tensor, out: int) -> Tensor:
    """The (out, out) pixels in the middle; an odd margin loses its larger half at the bottom and right."""
    top, left = (images.shape[2] - out) // 2, (images.shape[3] - out) // 2
    return images[:, :, top : top + out, left : left + out]


def mirrored(images: Tensor, flip: Tensor) -> Tensor:
    """Left and right exchanged where `flip` (B,), bool."""
    return torch.where(flip.view(-1, 1, 1, 1), images.flip(3), images)


def window(images: Tensor, corner: Tensor, out: int) -> Tensor:
    """The (out, out) pixels from `corner` on, black where they lie outside of the image.

    images (B, C, H, W); corner (B, 2) int64: top and left, in pixels, negative above and left of the image.
    """
    b, c, h, w = images.shape
    at = torch.arange(out, device=images.device)
    y, x = (corner[:, i, None] + at for i in (0, 1))
    inside = ((y >= 0) & (y < h))[:, None, :, None] & ((x >= 0) & (x < w))[:, None, None, :]
    rows = y.clamp(0, h - 1)[:, None, :, None].expand(b, c, out, w)
    columns = x.clamp(0, w - 1)[:, None, None, :].expand(b, c, out, out)
    return images.gather(2, rows).gather(3, columns).masked_fill_(~inside, 0)


def resized_crop(images: Tensor, box: Tensor, flip: Tensor, out: int, taps: int) -> Tensor:
    """Crop `box`, resize to (out, out) with the antialiased bilinear filter, and mirror where `flip`.

    images (B, 3, H, W) uint8; box (B, 4) int64: top, left, height, width, in pixels; flip (B,) bool; `taps`
    at least `taps_of` each side. Agrees with `resized_crop(antialias=True)` of torchvision on float images.
    """
    rows = _resample(images, box[:, 0], box[:, 2], out, taps)
    columns = _resample(rows.transpose(2, 3).contiguous(), box[:, 1], box[:, 3], out, taps, flip)
    return columns.transpose(2, 3).contiguous().div_(255)


def taps_of(side: int, out: int) -> int:
    """How many pixels of a crop with this side can reach one output pixel."""
    return -(-2 * max(side, out) // out)


def _resample(
    images: Tensor, start: Tensor, side: Tensor, out: int, taps: int, flip: Tensor | None = None
) -> Tensor:
    """Resample the rows [start, start + side) of (B, C, H, W) to (B, C, out, W): whole rows, weighted."""
    b, c, h, w = images.shape
    i = torch.arange(out, device=images.device)
    at = i.expand(b, out) if flip is None else torch.where(flip[:, None], out - 1 - i, i)
    scale = side.to(torch.float64)[:, None] / out
    reach = scale.clamp(min=1)
    centre = (at + 0.5) * scale
    first = (centre - reach + 0.5).floor().clamp_(min=0)

    # In the order of taps, so that a tap more of weight 0 (a wider box elsewhere in the batch) adds nothing.
    weights = []
    for k in range(taps):
        distance = (first + k - centre + 0.5).abs_() / reach
        weights.append((1 - distance).clamp_(min=0).mul_(first + k < side[:, None]))
    total = weights[0].clone()
    for weight in weights[1:]:
        total += weight

    last = (start + side - 1)[:, None]
    plane = torch.arange(b * c, device=images.device).view(b, c, 1) * h
    flat = images.reshape(b * c * h, w)
    result: Tensor | None = None
    for k, weight in enumerate(weights):
        row = torch.minimum(first.to(torch.int64) + (start[:, None] + k), last)
        picked = flat.index_select(0, (plane + row[:, None, :]).flatten()).view(b, c, out, w)
        term = picked.to(torch.float32).mul_((weight / total).to(torch.float32)[:, None, :, None])
        result = term if result is None else result.add_(term)
    assert result is not None
    return result


def affine(images: Tensor, matrix: Tensor, out: int) -> Tensor:
    """Sample the images bilinearly at `matrix` @ (x, y, 1) for each of (out, out) pixels; black outside.

    matrix (B, 2, 3): from output to input coordinates, in pixels from the centres of the two images, x right
    and y down. Agrees with torchvision's `affine` (bilinear, fill=None) for its inverse matrix.
    """
    b, c, h, w = images.shape
    x = torch.arange(out, device=images.device, dtype=torch.float32).sub_((out - 1) / 2)
    m = matrix[:, :, :, None, None]
    # A border of black pixels, one before and two after, stands for everything outside.
    at_x = m[:, 0, 0] * x + m[:, 0, 1] * x[:, None] + (m[:, 0, 2] + (w - 1) / 2 + 1)
    at_y = m[:, 1, 0] * x + m[:, 1, 1] * x[:, None] + (m[:, 1, 2] + (h - 1) / 2 + 1)
    at_x.clamp_(0, w + 1)
    at_y.clamp_(0, h + 1)
    left, top = at_x.floor(), at_y.floor()
    right, bottom = at_x.sub_(left)[:, None], at_y.sub_(top)[:, None]  # weights of the second pixel

    pitch = w + 3
    padded = torch.nn.functional.pad(images, (1, 2, 1, 2)).flatten(2)
    index = top.to(torch.int64).mul_(pitch).add_(left.to(torch.int64)).view(b, 1, -1).expand(b, c, out * out)
    near, beside, below, across = (
        padded[:, :, offset:].gather(2, index).view(b, c, out, out) for offset in (0, 1, pitch, pitch + 1)
    )
    upper = near.add_(beside.sub_(near).mul_(right))
    lower = below.add_(across.sub_(below).mul_(right))
    return upper.add_(lower.sub_(upper).mul_(bottom))


def grey(images: Tensor) -> Tensor:
    """(B, 1, H, W): luminance."""
    r, g, b = GREY
    return (images[:, 0:1] * r).add_(images[:, 1:2] * g).add_(images[:, 2:3] * b)


def grayscale(images: Tensor) -> Tensor:
    """Luminance in all three channels."""
    return images.copy_(grey(images))


def brightness(images: Tensor, factor: Tensor) -> Tensor:
    """Multiply by `factor` and clamp to 0..1."""
    return images.mul_(factor.view(-1, 1, 1, 1)).clamp_(0, 1)


def contrast(images: Tensor, factor: Tensor) -> Tensor:
    """Blend with the image's mean luminance.

    The mean is a sum of integers (luminance in steps of 2^-24), because a sum of floats depends on its order.
    """
    luminance = grey(images).mul_(2**24).to(torch.int32)
    total = luminance.sum(dim=(1, 2, 3), dtype=torch.int64)
    mean = (total.to(torch.float64) / (2**24 * luminance[0].numel())).to(torch.float32)
    return _blend(images, mean.view(-1, 1, 1, 1), factor)


def saturation(images: Tensor, factor: Tensor) -> Tensor:
    """Blend with the luminance."""
    return _blend(images, grey(images), factor)


def _blend(images: Tensor, other: Tensor, factor: Tensor) -> Tensor:
    """images * factor + other * (1 - factor), clamped to 0..1."""
    factor = factor.view(-1, 1, 1, 1)
    return images.mul_(factor).add_(other * (1 - factor)).clamp_(0, 1)


def hue(images: Tensor, shift: Tensor) -> Tensor:
    """Turn the hue by `shift`, in turns, -0.5 .. 0.5.

    By way of HSV as in torchvision, with the way back in closed form: channel n is
    V - C * clamp(min(k, 4 - k), 0, 1) with k = (n + 6 H) mod 6 and n = 5, 3, 1 for R, G, B.
    """
    r, g, b = images.unbind(1)
    value = torch.maximum(torch.maximum(r, g), b)
    chroma = value - torch.minimum(torch.minimum(r, g), b)
    safe = torch.where(chroma > 0, chroma, 1)
    sixths = torch.where(
        value == r, (g - b) / safe, torch.where(value == g, (b - r) / safe + 2, (r - g) / safe + 4)
    )
    sixths += shift.view(-1, 1, 1) * 6 + 6  # in 2 .. 14
    for channel, n in enumerate((5, 3, 1)):
        k = sixths + n
        k -= (k / 6).floor_().mul_(6)
        fall = torch.minimum(k, 4 - k).clamp_(0, 1)
        torch.sub(value, fall.mul_(chroma), out=images[:, channel])
    return images


def blur(images: Tensor, weights: Tensor) -> Tensor:
    """Separable symmetric filter with reflected borders.

    weights (B, R + 1): of the pixel itself and of those at distance 1 .. R, on either side, R below the side.
    Agrees with torchvision's `gaussian_blur` of kernel size 2 R + 1.
    """
    for axis in (2, 3):
        images = _blur_along(images, weights, axis)
    return images


def _blur_along(images: Tensor, weights: Tensor, axis: int) -> Tensor:
    reach, side = weights.shape[1] - 1, images.shape[axis]
    border = (reach, reach, 0, 0) if axis == 3 else (0, 0, reach, reach)
    padded = torch.nn.functional.pad(images, border, mode="reflect")
    w = weights.view(*weights.shape, 1, 1, 1)
    result = images * w[:, 0]
    pair = torch.empty_like(result)
    # From the centre outwards, so that taps of weight 0 (a smaller radius) add nothing.
    for k in range(1, reach + 1):
        before, after = padded.narrow(axis, reach - k, side), padded.narrow(axis, reach + k, side)
        result.add_(torch.add(before, after, out=pair).mul_(w[:, k]))
    return result


def solarise(images: Tensor) -> Tensor:
    """Invert the values from 128 of 255 up. Agrees with `solarize` of torchvision at that threshold."""
    return torch.where(images >= SOLARISE_FROM, 1 - images, images)


def erase(images: Tensor, box: Tensor) -> Tensor:
    """Black inside `box` (B, 4): top, left, height, width in pixels; nothing where a side is 0."""
    y, x = (torch.arange(n, device=images.device).view(shape) for n, shape in _axes(images))
    top, left, height, width = (box[:, i].view(-1, 1, 1, 1) for i in range(4))
    inside = ((y >= top) & (y < top + height)) & ((x >= left) & (x < left + width))
    return images.masked_fill_(inside, 0)


def _axes(images: Tensor) -> tuple[tuple[int, tuple[int, ...]], tuple[int, tuple[int, ...]]]:
    h, w = images.shape[2:]
    return (h, (1, 1, h, 1)), (w, (1, 1, 1, w))


def add_noise(images: Tensor, key: Tensor, sigma: Tensor) -> Tensor:
    """Add the same noise of standard deviation `sigma` to the three channels; clamp to 0..1."""
    h, w = images.shape[2:]
    return images.add_(noise(key, h * w).view(-1, 1, h, w).mul_(sigma.view(-1, 1, 1, 1))).clamp_(0, 1)


def noise(key: Tensor, count: int) -> Tensor:
    """(B, count) float32 of mean 0 and standard deviation 1, a pure function of `key` and the position.

    key (B,) int64 in 0 .. 2^32 - 1. A hash of key and position gives four bytes; their sum (Irwin-Hall,
    n = 4) is bell-shaped, between -3.45 and 3.45, and needs no transcendental function.
    """
    # 64-bit integers below 2^59 throughout: nothing overflows.
    bits = torch.arange(1, count + 1, device=key.device).mul_(0x9E3779B1).bitwise_and_(0xFFFFFFFF)
    bits = _mix(_mix(bits ^ key[:, None]) ^ (key[:, None] >> 7))
    total = bits & 0xFF
    for shift in (8, 16, 24):
        total += (bits >> shift) & 0xFF
    return total.to(torch.float32).sub_(510).div_(math.sqrt(4 * (256**2 - 1) / 12))


def _mix(bits: Tensor) -> Tensor:
    """An integer hash of 32 bits (two rounds of xor-shift and multiply), in place."""
    for _ in range(2):
        bits = bits.bitwise_xor_(bits >> 16).mul_(0x45D9F3B).bitwise_and_(0xFFFFFFFF)
    return bits.bitwise_xor_(bits >> 16)
