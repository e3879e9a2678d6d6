"""The operations that views are made of: batches of images, one set of parameters per sample.

All are pixel for pixel the same operation for every sample: additions, products, comparisons, gathers and
integer arithmetic, each of which IEEE 754 fixes to the last bit. No reduction in floating point, no
convolution, no matrix product and no transcendental function touches a pixel, so a sample's bits on the CPU
do not depend on the batch it is in, on its place there, or on the number of threads.

Images are float32 (B, 3, H, W) in 0..1 unless said otherwise. Parameters are tensors with B entries on the
images' device. An operation may overwrite and return the images it was given.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence

import torch
from torch import Tensor

from trainables.spec.normalisation import IMAGENET

MEAN, STD = IMAGENET  # for every data set; `Backbone.feed` is for networks that were trained on others
SOLARISE_FROM = 128 / 255
_TINY = torch.finfo(torch.float32).tiny  # smaller differences than this do not outlive `normalise`
GREY = (0.2989, 0.587, 0.114)  # torchvision's weights of R, G, B


def to_unit(images: Tensor) -> Tensor:
    """uint8 -> float32 in 0..1."""
    return images.to(torch.float32).div_(255)


def normalise(images: Tensor, out: Tensor | None = None) -> Tensor:
    """Subtract ImageNet's mean and divide by its standard deviation, by channel; into `out` or in place."""
    mean, std = _mean_and_std(images.device)
    return torch.sub(images, mean, out=images if out is None else out).div_(std)


@functools.cache
def _mean_and_std(device: torch.device) -> tuple[Tensor, Tensor]:
    # Once a device: a copy from unpinned memory waits for a GPU.
    mean, std = (torch.tensor(values, device=device).view(3, 1, 1) for values in (MEAN, STD))
    return mean, std


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


def resized_crop(images: Tensor, weights: Tensor, positions: Tensor, taps: Sequence[int]) -> Tensor:
    """Crop, resize with an antialiased filter, and mirror, as `sampling` says.

    images (B, 3, H, W) uint8 -> (B, 3, out, out); `taps` how many of them these images need along rows and
    along columns. Agrees with `resized_crop(antialias=True)` of torchvision on float images.
    """
    b, c, h, w = images.shape
    out = weights.shape[3]
    planes = torch.arange(b * c).view(b, c, 1) * h
    flat = images.reshape(b * c * h, w)

    def row(k: int) -> Tensor:
        picked = flat.index_select(0, (planes + positions[:, 0, k, None]).flatten()).view(b, c, out, w)
        return picked.to(torch.float32).mul_(weights[:, 0, k, None, :, None])

    rows = functools.reduce(Tensor.add_, map(row, range(taps[0])))
    # Whole rows are copied fast, so columns become rows, by one transposition of two axes for all images,
    # which is faster than one of each.
    turned = rows.view(b * c * out, w).t().contiguous().view(w * b, c * out)
    samples = torch.arange(b)

    def column(k: int) -> Tensor:
        picked = turned.index_select(0, (positions[:, 1, k].t() * b + samples).flatten())
        return picked.view(out, b, c * out).mul_(weights[:, 1, k].t()[:, :, None])

    columns = functools.reduce(Tensor.add_, map(column, range(taps[1])))
    return columns.view(out, b * c * out).t().contiguous().view(b, c, out, out).div_(255)


def sampling(edges: Tensor, pixels: Tensor, taps: Tensor, cubic: bool = False) -> tuple[Tensor, Tensor]:
    """Which rows and columns of an image, weighted how, make each row and each column of its resized crop.

    The filter is a triangle (bilinear), or Keys' cubic with a = -0.5 (bicubic), which reaches twice as far
    and may leave the range of the pixels; both as in Pillow, widened where the crop is reduced.

    edges (B, 7, 2, 1) float64, of `parameter_table.edges`; pixels (out,) and taps (T, 1) float64: 0, 1, 2, ….
    T is at least `taps_of` each side; more change nothing. Returns weights (B, 2, T, out) float32, of which
    the first [:, 0] are for rows, and positions (B, 2, T, out) int64.
    """
    start, side, scale, reach, last, sign, offset = edges.unbind(1)
    centre = torch.addcmul(offset, sign, pixels).mul_(scale)  # the sum is exact
    first = (centre - (2 * reach if cubic else reach)).add_(0.5).floor_().clamp_(min=0)
    tap = first[:, :, None] + taps
    away = (tap - centre[:, :, None]).add_(0.5).abs_().div_(reach[..., None])
    weight = (_cubic(away) if cubic else (1 - away).clamp_(min=0)).mul_(tap < side[..., None])
    # In the order of taps, so that a tap more of weight 0 (a wider box elsewhere in the batch) adds nothing.
    weights = weight.div_(in_order(weight.unbind(2))[:, :, None]).to(torch.float32)
    return weights, torch.minimum(tap.add_(start[..., None]), last[..., None]).to(torch.int64)


def _cubic(away: Tensor) -> Tensor:
    """The weight of a pixel so far away (Keys, "Cubic convolution interpolation", 1981, eq. 4, a = -0.5)."""
    near = away.mul(1.5).sub_(2.5).mul_(away).mul_(away).add_(1)
    far = away.mul(-0.5).add_(2.5).mul_(away).sub_(4).mul_(away).add_(2)
    return torch.where(away < 1, near, torch.where(away < 2, far, 0))


def taps_of(side: int, out: int, cubic: bool = False) -> int:
    """How many pixels of a crop with this side can reach one output pixel; at least 2, cubic 4."""
    return -(-(4 if cubic else 2) * max(side, out) // out)


def in_order(terms: Sequence[Tensor]) -> Tensor:
    """The sum of two terms or more from the first to the last; `torch.sum` may take them in another order."""
    total = terms[0] + terms[1]
    for term in terms[2:]:
        total.add_(term)
    return total


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
    """Blend with the image's mean luminance."""
    return _mixed(images, _mean(grey(images)), factor)


def saturation(images: Tensor, factor: Tensor) -> Tensor:
    """Blend with the luminance."""
    return _mixed(images, grey(images), factor)


def blend(images: Tensor, keep: Tensor, colour: Tensor, level: Tensor) -> Tensor:
    """images * keep + luminance * colour + mean luminance * level, clamped to 0..1; colour or level is 0.

    Brightness (both are 0), contrast and saturation in one, of samples of which each has its own.
    """
    keep, colour, level = (numbers.view(-1, 1, 1, 1) for numbers in (keep, colour, level))
    luminance = grey(images)
    level = _mean(luminance).mul_(level)
    return images.mul_(keep).add_(luminance.mul_(colour).add_(level)).clamp_(0, 1)


def _mean(luminance: Tensor) -> Tensor:
    """(B, 1, 1, 1): a sum of integers (steps of 2^-24), because a sum of floats depends on its order."""
    steps = (luminance * 2**24).to(torch.int32)
    total = steps.sum(dim=(1, 2, 3), dtype=torch.int64)
    return (total.to(torch.float64) / (2**24 * steps[0].numel())).to(torch.float32).view(-1, 1, 1, 1)


def _mixed(images: Tensor, other: Tensor, factor: Tensor) -> Tensor:
    """images * factor + other * (1 - factor), clamped to 0..1; `other` is overwritten."""
    factor = factor.view(-1, 1, 1, 1)
    return images.mul_(factor).add_(other.mul_(1 - factor)).clamp_(0, 1)


def hue(images: Tensor, shift: Tensor) -> Tensor:
    """Turn the hue by `shift`, in turns, -0.5 .. 0.5.

    By way of HSV as in torchvision, with the way back in closed form: channel n is
    V - C * clamp(min(k, 4 - k), 0, 1) with k = (n + 6 H) mod 6 and n = 5, 3, 1 for R, G, B.
    """
    r, g, b = images.unbind(1)
    value = torch.maximum(torch.maximum(r, g), b)
    chroma = value - torch.minimum(torch.minimum(r, g), b)
    # Which is the largest, the first of equal ones, as 1 or 0: a choice by booleans takes 30 times as long.
    red, green = (torch.eq(value, channel, out=torch.empty_like(value)) for channel in (r, g))
    green.sub_(green * red)
    blue = (1 - red).sub_(green)
    apart = (g - b).mul_(red).add_((b - r).mul_(green)).add_((r - g).mul_(blue))  # two terms are 0
    sixths = apart.div_(chroma.clamp(min=_TINY)).add_(green, alpha=2).add_(blue, alpha=4)
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
    bright = torch.ge(images, SOLARISE_FROM, out=torch.empty_like(images))  # 1 or 0, as in `hue`
    return (bright - images).mul_(bright.mul_(2).sub_(1))


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
