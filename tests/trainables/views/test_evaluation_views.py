"""Evaluation views and views of another size: the numbers of timm's transforms, and of the same draw."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import timm.data
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from trainables.spec.data_spec import DataSpec
from trainables.spec.inputs import Inputs, Interpolation
from trainables.spec.normalisation import IMAGENET
from trainables.spec.trial import ViewSpec
from trainables.views import operations as ops
from trainables.views.augmented import EpochViews, PlainView, Views, evaluation_view, plain
from trainables.views.grouped import grouped_views
from trainables.views.masked import columns, masked_views
from trainables.views.packed import packed
from trainables.views.parameter_table import as_cubic

COUNT, STORED = 6, 32
MEAN, STD = (torch.tensor(values).view(3, 1, 1) for values in IMAGENET)


def smooth(side: int, count: int = COUNT) -> Tensor:
    """Pictures without detail finer than a pixel: sums of waves."""
    y, x = torch.meshgrid(torch.linspace(0, 6, side), torch.linspace(0, 6, side), indexing="ij")
    waves = [
        torch.sin(x * (0.3 + i / 3) + c) * torch.cos(y * (0.5 + c / 3) - i)
        for i in range(count)
        for c in range(3)
    ]
    return ((torch.stack(waves).view(count, 3, side, side) + 1) * 127.5).to(torch.uint8)


IMAGES = smooth(STORED)
NOISE = torch.randint(0, 256, (COUNT, 3, STORED, STORED), dtype=torch.uint8, generator=torch.Generator())


def table(box: tuple[int, int, int, int]) -> dict[str, np.ndarray]:
    return {"crop": np.array([box] * COUNT, np.int16), "flip": np.zeros(COUNT, np.bool_)}


@pytest.mark.parametrize("side, out", [(24, 16), (24, 24), (12, 31), (32, 7), (20, 64)])
def test_cubic_crops_are_torch_s_antialiased_ones_to_the_same_bits_by_both_ways(side: int, out: int) -> None:
    box = (3, 5, side, side) if side < 27 else (0, 0, side, side)
    own = as_cubic(table(box))
    got = grouped_views(NOISE, own, out)
    cut = NOISE[:, :, box[0] : box[0] + side, box[1] : box[1] + side].float() / 255
    want = F.interpolate(cut, (out, out), mode="bicubic", antialias=True).clamp(0, 1)
    torch.testing.assert_close(got * STD + MEAN, want, rtol=0, atol=2e-5)
    given = packed(columns(own, STORED, out), torch.device("cpu"))
    assert torch.equal(masked_views(NOISE, given, out, 1), got)


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_an_evaluation_view_is_timm_s(interpolation: Interpolation) -> None:
    """Where timm resizes to 64 and takes 56, we take 28 of 32 and resize to 56: the same grid of pixels."""
    (view,) = {evaluation_view(DataSpec(image_size=28, margin=4), Inputs(
        interpolation=interpolation, crop_share=0.875, image_size=56))}  # fmt: skip
    assert view == PlainView(56, 28, interpolation)
    transform: Any = timm.data.create_transform(
        (3, 56, 56), crop_pct=0.875, interpolation=interpolation, mean=IMAGENET.mean, std=IMAGENET.std
    )
    pictures = [Image.fromarray(one.permute(1, 2, 0).numpy()) for one in IMAGES]
    want = torch.stack([transform(picture) for picture in pictures]) * STD + MEAN
    got = plain(IMAGES, view) * STD + MEAN
    inner = slice(4, -4)  # at the border timm sees pixels behind it
    # timm's are rounded to integers after each of two passes.
    torch.testing.assert_close(got[..., inner, inner], want[..., inner, inner], rtol=0, atol=1.6 / 255)


def test_the_data_s_own_views_are_not_resized_and_a_share_of_them_is() -> None:
    data = DataSpec(image_size=28, margin=4)
    assert evaluation_view(data) == PlainView(28, 28)
    assert torch.equal(plain(IMAGES, evaluation_view(data)), plain(IMAGES, 28))
    # A margin for a teacher's pixels leaves the student's views as they are, by a share.
    wide = DataSpec(image_size=14, margin=18, crop_share=0.875)
    assert evaluation_view(wide) == PlainView(14, 28)
    reduced = plain(IMAGES, evaluation_view(wide)) * STD + MEAN
    cut = ops.to_unit(IMAGES[:, :, 2:30, 2:30])
    want = F.interpolate(cut, (14, 14), mode="bilinear", antialias=True)
    torch.testing.assert_close(reduced, want, rtol=0, atol=1e-5)


def test_pictures_that_were_squeezed_are_shown_by_the_same_share() -> None:
    aspect = np.array([2.0] * COUNT, np.float32)
    whole = IMAGES.repeat_interleave(2, 3)  # twice as wide as high, 64 x 32
    squeezed = whole[..., ::2].contiguous()
    got = plain(squeezed, PlainView(28, 14), aspect)
    assert got.shape == (COUNT, 3, 28, 28)
    middle = ops.normalise(ops.to_unit(squeezed[:, :, 9:23, 12:19]))  # 14 of 32 high, 7 of the squeezed width
    torch.testing.assert_close(got.mean((2, 3)), middle.mean((2, 3)), rtol=0, atol=0.06)


# --- views of another size from the same draw ---------------------------------------------------------------


def drawn(recipe: str, out: int = 16, **fields: Any) -> EpochViews:
    return Views(ViewSpec(recipe=recipe, **fields), STORED, out, COUNT, 2, 5).epoch(1)


@pytest.mark.parametrize("recipe", ["moco_v2", "solo_learn", "imagenet"])
def test_a_larger_view_is_the_same_crop_with_more_pixels(recipe: str) -> None:
    images, ids = smooth(96), np.arange(COUNT)
    epoch = Views(ViewSpec(recipe=recipe), 96, 40, COUNT, 2, 5).epoch(1)
    own = epoch.apply_all(images, ids)
    same = epoch.at(images, ids, 40, "bilinear")
    assert all(b is not None and torch.equal(a, b) for a, b in zip(own, same, strict=True))
    for interpolation in ("bilinear", "bicubic"):
        larger = epoch.at(images, ids, 80, interpolation)  # type: ignore[arg-type]
        for small, large in zip(own, larger, strict=True):
            assert large is not None and large.shape[2:] == (80, 80)
            # Averaged again it is the small one: crop, flip, colours and blur are the same.
            again = F.avg_pool2d(large, 2)
            assert (again - small).abs().mean() < 0.04 < (again - small.roll(1, 0)).abs().mean() / 10


def test_a_blur_is_as_wide_in_the_picture_at_every_size() -> None:
    sharp, blurred = ({"crop": 0.01, "blur": p, "flip": 0} for p in (0, 1.0))
    ids = np.arange(COUNT)
    lost = []
    for operations in (sharp, blurred):
        epoch = Views(ViewSpec(recipe="none", operations=operations), STORED, 24, COUNT, 1, 5).epoch(1)
        own = epoch.apply_all(NOISE, ids)
        (large,) = epoch.at(NOISE, ids, 72, "bilinear")
        assert large is not None
        lost.append((own[0].std(), F.avg_pool2d(large, 3).std()))
    (small_0, large_0), (small_1, large_1) = lost
    # The kernel of SimCLR is cut at a twentieth of the side, 1 pixel here and 3 there.
    assert abs(small_1 / small_0 - large_1 / large_0) < 0.1 and small_1 < 0.8 * small_0


@pytest.mark.parametrize("recipe", ["digits", "cifar", "none"])
def test_views_of_stored_pixels_exist_at_one_size(recipe: str) -> None:
    assert drawn(recipe).at(IMAGES, np.arange(COUNT), 32, "bilinear") == [None, None]
