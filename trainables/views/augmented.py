"""Augmented views as a pure function of (seed, epoch, sample id, view).

    views = Views(spec, size_in=18, size_out=16, n_images=len(images), views=2, seed=0)
    epoch = views.epoch(3)                                  # numbers for every sample, drawn once
    x = epoch.apply(images.take(ids).to(device), ids, 0)    # (B, 3, 16, 16), normalised
    x, y = epoch.apply_all(images.take(ids).to(device), ids)

The parameters of an epoch are drawn for the whole data set by one generator seeded with (seed, epoch), which
spawns a stream for each view and operation; samples are looked up by id. So a view does not depend on batch
size, order, workers or threads: on the CPU it is the same bits. Trials that share a seed see the same views,
at another strength or with more views per image, too. The second view may have a recipe of its own.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from trainables.spec.data_spec import DataSpec
from trainables.spec.inputs import USUAL, Inputs, Interpolation
from trainables.spec.trial import ViewSpec
from trainables.views import operations as ops
from trainables.views.grouped import grouped_views
from trainables.views.masked import masked_views
from trainables.views.on_gpu import Compute, alike, views_on_gpu
from trainables.views.parameter_table import Array, Table, as_cubic, at_size, centre, draw, drawn_in_pixels
from trainables.views.recipes import recipe_of

Ids = npt.NDArray[np.int64] | Tensor


class PlainView(NamedTuple):
    """A view without augmentation: the `kept` pixels in the middle of a stored image, resized to `size`."""

    size: int
    kept: int
    interpolation: Interpolation = "bilinear"


def evaluation_view(data: DataSpec, inputs: Inputs = USUAL) -> PlainView:
    """What a network that takes `inputs` is shown of these images when it is evaluated."""
    return PlainView(inputs.image_size or data.image_size, data.kept(inputs.crop_share), inputs.interpolation)


def plain(images: Tensor, view: PlainView | int, aspect: Array | None = None) -> Tensor:
    """(B, 3, S, S) uint8 -> (B, 3, size, size) float32: the centre, normalised. For probes.

    `view`: an integer is that many pixels in the middle, as they are. `aspect` (B,): width / height of the
    pictures, where they were squeezed into these squares.
    """
    size, kept, interpolation = PlainView(view, view) if isinstance(view, int) else view
    if aspect is None and kept == size:
        return ops.normalise(ops.to_unit(ops.centre_crop(images, size)))
    table = centre(np.ones(len(images)) if aspect is None else aspect, images.shape[2], kept)
    table = as_cubic(table) if interpolation == "bicubic" else table
    # Not compiled: batches of a probe have many sizes.
    return _computed(images, [table], size, masked_views)[0]


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
        return _computed(images, self._rows(images, ids, [view]), self.size_out)[0]

    def apply_all(self, images: Tensor, ids: Ids) -> list[Tensor]:
        """Every view of these images; on a GPU by the operations of one, if they do the same things."""
        return _computed(images, self._rows(images, ids, range(len(self.tables))), self.size_out)

    def at(self, images: Tensor, ids: Ids, size: int, interpolation: Interpolation) -> list[Tensor | None]:
        """The views with `size` pixels, from the same crops of the stored images.

        None for a view that exists at its own size alone.
        """
        tables = self._rows(images, ids, range(len(self.tables)))
        again = [number for number, table in enumerate(tables) if not drawn_in_pixels(table)]
        larger = [at_size(tables[number], self.size_out, size, interpolation) for number in again]
        made = dict(zip(again, _computed(images, larger, size), strict=True))
        return [made.get(number) for number in range(len(tables))]

    def _rows(self, images: Tensor, ids: Ids, views: Iterable[int]) -> list[Table]:
        """These samples' parameters, for each view."""
        if images.dtype != torch.uint8 or images.shape[1:] != (3, self.size_in, self.size_in):
            raise ValueError(
                f"images {tuple(images.shape)} {images.dtype}, not (B, 3, {self.size_in}, …) uint8"
            )
        rows = np.asarray(ids.cpu() if isinstance(ids, Tensor) else ids, dtype=np.int64)
        if len(rows) != len(images) or rows.min(initial=0) < 0:
            raise ValueError(f"ids {rows.shape} from {rows.min(initial=0)} up for {len(images)} images")
        return [{name: values[rows] for name, values in self.tables[view].items()} for view in views]


@torch.no_grad()
def _computed(images: Tensor, tables: list[Table], out: int, compute: Compute | None = None) -> list[Tensor]:
    """The view of these images by each table; `compute`, if given, in the place of the compiled function."""
    if images.device.type == "cpu":
        return [grouped_views(images, table, out) for table in tables]
    if alike(tables):
        return views_on_gpu(images, tables, out, compute)
    return [views_on_gpu(images, [table], out, compute)[0] for table in tables]
