"""Views have the bits that older trials were trained on, however they are computed."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from slow_views import slow_views

from trainables.spec.trial import ViewSpec
from trainables.views.augmented import Views
from trainables.views.recipes import RECIPES

# What a trial can change, one of each kind; the pictures of `whole` were squeezed from these ratios.
CHANGES: dict[str, dict[str, Any]] = {
    "as it is": {},
    "weak": {"strength": 0.5},
    "strong": {"strength": 2.0},
    "still": {"strength": 0.0},
    "second": {"second": {"solarise": 0.5, "blur": 1.0, "grayscale": 0.5}},
    "all colours": {
        "operations": {"jitter": [2, 2, 2, 0.5], "jitter_probability": 0.9, "solarise": 0.5, "gain": 1}
    },
    "noise": {"operations": {"noise": 0.3, "erase": 0.5, "blur": 0.7, "flip": 0.5}},
}
SIZES = ((16, 16), (23, 19), (36, 32), (40, 33), (72, 64), (64, 16), (112, 96), (256, 224))


def images_of(count: int, side: int, seed: int) -> torch.Tensor:
    """Noise, two levels, flat parts and grey parts: where hues, ties and clamps are met."""
    pixels = np.random.default_rng(seed).integers(0, 256, (count, 3, side, side), np.uint8)
    pixels[::4] = 255 * (pixels[::4] // 128)
    pixels[1::4, :, : side // 2] = pixels[1::4, :1, : side // 2]
    pixels[2::4] = pixels[2::4, :, ::4, ::4].repeat(4, 2).repeat(4, 3)[:, :, :side, :side]
    return torch.from_numpy(pixels)


def check(spec: ViewSpec, side: int, out: int, count: int, seed: int, whole: bool) -> None:
    images, ids = images_of(count, side, seed), np.random.default_rng(seed).permutation(2 * count)[:count]
    ratios = np.random.default_rng(seed).choice(np.float32([0.5, 0.75, 1, 4 / 3, 2]), 2 * count)
    epoch = Views(spec, side, out, 2 * count, 2, seed, ratios if whole else None).epoch(1)
    for view in (0, 1):
        want = slow_views(epoch.tables[view], ids, images, out)
        assert torch.equal(epoch.apply(images, ids, view), want)


@settings(max_examples=60)
@given(
    recipe=st.sampled_from(sorted(RECIPES)),
    change=st.sampled_from(sorted(CHANGES)),
    size=st.sampled_from(SIZES[:-2]),
    count=st.sampled_from([1, 2, 3, 7, 13]),
    seed=st.integers(0, 2**33),
    whole=st.booleans(),
)
def test_bits(recipe: str, change: str, size: tuple[int, int], count: int, seed: int, whole: bool) -> None:
    check(ViewSpec(recipe=recipe, **CHANGES[change]), *size, count, seed, whole)


@pytest.mark.parametrize("recipe", sorted(RECIPES))
@pytest.mark.parametrize("size", SIZES[-2:])
def test_bits_where_a_batch_is_worked_through_in_pieces(recipe: str, size: tuple[int, int]) -> None:
    check(ViewSpec(recipe=recipe), *size, 9, 5, whole=False)
