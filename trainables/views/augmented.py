"""Augmented views as a pure function of (seed, epoch, sample id, view).

    views = Views(spec, size_in=18, size_out=16, n_images=len(images), views=2, seed=0)
    epoch = views.epoch(3)                                  # numbers for every sample, drawn once
    x = epoch.apply(images.take(ids).to(device), ids, 0)    # (B, 3, 16, 16), normalised

The parameters of an epoch are drawn for the whole data set by one generator seeded with (seed, epoch), which
spawns a stream for each view and operation; samples are looked up by id. So a view does not depend on batch
size, order, workers or threads: on the CPU it is the same bits. Trials that share a seed see the same views,
at another strength or with more views per image, too. The second view may have a recipe of its own.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from trainables.spec.trial import ViewSpec
from trainables.views import operations as ops
from trainables.views.parameter_table import (
    JITTER_ORDERS,
    NO_JITTER,
    Array,
    Table,
    blur_weights,
    centre,
    draw,
)
from trainables.views.recipes import recipe_of

# Values of one piece that a batch is worked through in: on a CPU so few that they stay in the cache, on a GPU
# so many that they keep it busy (256 images of 224 px, 150 MB a temporary).
PIECE = {"cpu": 3 * 224**2, "cuda": 256 * 3 * 224**2}
Ids = npt.NDArray[np.int64] | Tensor


def plain(images: Tensor, size_out: int, aspect: Array | None = None) -> Tensor:
    """(B, 3, S, S) uint8 -> (B, 3, size_out, size_out) float32: the centre, normalised. For probes.

    `aspect` (B,): width / height of the pictures, where they were squeezed into these squares.
    """
    if aspect is not None:
        view = EpochViews([centre(aspect, images.shape[2], size_out)], images.shape[2], size_out)
        return view.apply(images, np.arange(len(images)), 0)
    return ops.normalise(ops.to_unit(ops.centre_crop(images, size_out)))


class Views:
    """The views of a run: `views` of each of `n_images` images, `size_in` pixels wide, to `size_out`.

    `aspect` (n_images,): width / height of the pictures, where they were squeezed into squares.
    """

    def __init__(
        self,
        spec: ViewSpec,
        size_in: int,
        size_out: int,
        n_images: int,
        views: int,
        seed: int,
        aspect: Array | None = None,
    ) -> None:
        if size_out > size_in:
            raise ValueError(f"views of {size_out} pixels from images of {size_in}")
        self.recipes, self.strength = [recipe_of(spec, view) for view in range(views)], spec.strength
        self.size_in, self.size_out = size_in, size_out
        self.n_images, self.seed = n_images, seed
        self.aspect = aspect

    def epoch(self, epoch: int) -> EpochViews:
        """Draw the parameters of an epoch, for every image and view.

        Memory: `moco_v2` 31 bytes an image and view (80 MB for two views of ImageNet), `solo_learn` 31 and
        32, `light` and `imagenet` 9, `cifar` 5, `digits` 44.
        Time: 0.3 s for a million images and one view of `moco_v2`.
        """
        rng = np.random.default_rng([self.seed % 2**64, epoch])
        tables = [
            draw(recipe, self.strength, self.size_in, self.size_out, self.n_images, stream, self.aspect)
            for recipe, stream in zip(self.recipes, rng.spawn(len(self.recipes)), strict=True)
        ]
        return EpochViews(tables, self.size_in, self.size_out)


class EpochViews:
    """One epoch's views."""

    def __init__(self, tables: list[Table], size_in: int, size_out: int) -> None:
        self.tables, self.size_in, self.size_out = tables, size_in, size_out

    def apply(self, images: Tensor, ids: Ids, view: int) -> Tensor:
        """View number `view` of images (B, 3, size_in, size_in) uint8 with these ids, on the images' device.

        (B, 3, size_out, size_out) float32, normalised. Not differentiable.
        """
        if images.dtype != torch.uint8 or images.shape[1:] != (3, self.size_in, self.size_in):
            raise ValueError(
                f"images {tuple(images.shape)} {images.dtype}, not (B, 3, {self.size_in}, …) uint8"
            )
        rows = np.asarray(ids.cpu() if isinstance(ids, Tensor) else ids, dtype=np.int64)
        if len(rows) != len(images) or rows.min(initial=0) < 0:
            raise ValueError(f"ids {rows.shape} from {rows.min(initial=0)} up for {len(images)} images")
        own = {name: values[rows] for name, values in self.tables[view].items()}
        piece = max(1, PIECE.get(images.device.type, PIECE["cuda"]) // (3 * self.size_out**2))
        with torch.no_grad():
            out = torch.empty(
                (len(rows), 3, self.size_out, self.size_out), dtype=torch.float32, device=images.device
            )
            for start in range(0, len(rows), piece):
                part = slice(start, start + piece)
                out[part] = self._piece(images[part], {name: values[part] for name, values in own.items()})
        return out

    def _piece(self, images: Tensor, own: Table) -> Tensor:
        device, out = images.device, self.size_out
        if "crop" in own:
            taps = ops.taps_of(int(own["crop"][:, 2:].max()), out)
            box, flip = _on(own["crop"].astype(np.int64), device), _on(own["flip"], device)
            x = ops.resized_crop(images, box, flip, out, taps)
        elif "corner" in own:
            x = ops.to_unit(ops.window(images, _on(own["corner"].astype(np.int64), device), out))
        elif "matrix" in own:
            x = ops.affine(ops.to_unit(images), _on(own["matrix"], device), out)
        else:
            x = ops.to_unit(ops.centre_crop(images, out))
        if "flip" in own and "crop" not in own:
            x = ops.mirrored(x, _on(own["flip"], device))
        if "order" in own:
            x = _jitter(x, own["order"], own["factors"])
        if "grayscale" in own:
            x = _where(x, own["grayscale"], ops.grayscale)
        if "sigma" in own:
            on = own["sigma"] > 0
            if on.any():
                x = _where(x, on, ops.blur, blur_weights(own["sigma"][on], out))
        if "solarise" in own:
            x = _where(x, own["solarise"], ops.solarise)
        if "gain" in own:
            x = ops.brightness(x, _on(own["gain"], device))
        if "noise_key" in own:
            key, sigma = _on(own["noise_key"].astype(np.int64), device), _on(own["noise_sigma"], device)
            x = ops.add_noise(x, key, sigma)
        if "erase" in own:
            x = ops.erase(x, _on(own["erase"].astype(np.int64), device))
        return ops.normalise(x)


def _jitter(x: Tensor, order: Array, factors: Array) -> Tensor:
    """Brightness, contrast, saturation and hue, in each sample's own order."""
    turn = np.asarray(JITTER_ORDERS)[np.where(order == NO_JITTER, 0, order)]
    for place in range(4):
        for i, op in enumerate((ops.brightness, ops.contrast, ops.saturation, ops.hue)):
            on = (turn[:, place] == i) & (order != NO_JITTER)
            x = _where(x, on, op, factors[on, i])
    return x


def _where(x: Tensor, on: npt.NDArray[np.bool_], op: Callable[..., Tensor], *parameters: Array) -> Tensor:
    """`op` with its parameters on the samples where `on`, the others as they are."""
    if not on.any():
        return x
    tensors = [_on(values, x.device) for values in parameters]
    if on.all():
        return op(x, *tensors)
    index = _on(np.flatnonzero(on), x.device)
    return x.index_copy_(0, index, op(x.index_select(0, index), *tensors))


def _on(values: Array, device: torch.device) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(values)).to(device, non_blocking=True)
