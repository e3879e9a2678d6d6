"""Views have the bits that older trials were trained on, however they are computed."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from slow_views import slow_views
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from trainables.spec.trial import ViewSpec
from trainables.views import grouped, on_gpu
from trainables.views.augmented import EpochViews, Views
from trainables.views.masked import masked_views
from trainables.views.on_gpu import Compiled, Compute, alike, views_on_gpu
from trainables.views.packed import packed
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


def images_of(count: int, side: int, seed: int) -> Tensor:
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
    both = epoch.apply_all(images, ids)
    as_on_a_gpu = by_masks(epoch, images, ids, [0, 1]) if alike(epoch.tables) else both
    for view in (0, 1):
        want = slow_views(epoch.tables[view], ids, images, out)
        assert torch.equal(both[view], want)
        assert torch.equal(epoch.apply(images, ids, view), want)
        assert torch.equal(as_on_a_gpu[view], want)
        assert torch.equal(by_masks(epoch, images, ids, [view])[0], want)


def by_masks(
    epoch: EpochViews, images: Tensor, ids: np.ndarray, views: list[int], compute: Compute = masked_views
) -> list[Tensor]:
    """What a GPU computes, here on the CPU."""
    tables = [{name: values[ids] for name, values in epoch.tables[view].items()} for view in views]
    return views_on_gpu(images, tables, epoch.size_out, compute)


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


@pytest.mark.parametrize(
    ("recipe", "size"),
    [*((recipe, SIZES[-2]) for recipe in sorted(RECIPES)), ("moco_v2", SIZES[-1]), ("cifar", SIZES[-1])],
)
def test_bits_where_a_batch_is_worked_through_in_pieces(
    recipe: str, size: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(grouped, "PIECE", 2 * 3 * size[1] ** 2)
    monkeypatch.setattr(on_gpu, "PIECE", 5 * 3 * size[1] ** 2)
    check(ViewSpec(recipe=recipe), *size, 5, 5, whole=False)


# --- what a GPU needs ---------------------------------------------------------------------------------------


class Operations(TorchDispatchMode):
    """Counts the operations that work on data, not those that look at a tensor in another way."""

    def __init__(self) -> None:
        super().__init__()
        self.counted: Counter[str] = Counter()

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if not function.is_view:
            self.counted[function.name()] += 1
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize(
    ("recipe", "most"),
    [
        *(("moco_v2", 150), ("ssl_small", 150), ("solo_learn", 155), ("imagenet", 40), ("light", 40)),
        *(("cifar", 30), ("digits", 105), ("none", 10)),
    ],
)
@pytest.mark.parametrize("size", [(36, 32), (256, 224)])
def test_operations_of_two_views(recipe: str, most: int, size: tuple[int, int]) -> None:
    """On a GPU each is a kernel at most; none of them makes the host wait for a number."""
    images, ids = images_of(3, size[0], 0), np.arange(3)
    epoch = Views(ViewSpec(recipe=recipe), *size, 3, 2, 0).epoch(0)
    with Operations() as operations:
        by_masks(epoch, images, ids, [0, 1])
    assert operations.counted.total() <= most, operations.counted
    assert not {"aten::_local_scalar_dense", "aten::nonzero", "aten::item"} & set(operations.counted)


def test_one_block_carries_all_parameters() -> None:
    columns = {
        "a": np.arange(5),
        "b": np.array([[True], [False]]),
        "c": np.float32([[1.5, 2]]),
        "d": np.zeros(0),
    }
    found = packed(columns, torch.device("cpu"))
    for name, values in columns.items():
        np.testing.assert_array_equal(found[name].numpy(), values, strict=True)
        assert found[name].data_ptr() % 64 == 0 or not values.size
    assert len({tensor.untyped_storage().data_ptr() for tensor in found.values()}) == 1


def test_views_of_other_geometries_are_not_computed_together() -> None:
    spec = ViewSpec(recipe="none", second={"rotate": 20.0})
    epoch = Views(spec, 23, 19, 6, 2, 0).epoch(0)
    assert not alike(epoch.tables)
    check(spec, 23, 19, 3, 0, whole=False)


def test_without_a_compiler_the_function_is_called_as_it_is(recwarn: pytest.WarningsRecorder) -> None:
    def broken(graph: Any, inputs: Any) -> Any:
        raise RuntimeError("no compiler here")

    images, ids = images_of(3, 23, 0), np.arange(3)
    epoch = Views(ViewSpec(recipe="light"), 23, 19, 3, 2, 0).epoch(0)
    compute = Compiled(masked_views, backend=broken)
    for _ in range(2):
        for got, want in zip(
            by_masks(epoch, images, ids, [0, 1], compute), epoch.apply_all(images, ids), strict=True
        ):
            assert torch.equal(got, want)
    assert not recwarn.list


def test_only_the_first_kinds_of_batches_are_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(on_gpu, "_MOST_COMPILED", 2)
    compiled = []

    def backend(graph: Any, inputs: Any) -> Any:
        compiled.append(graph)
        return graph.forward

    compute = Compiled(masked_views, backend=backend)
    epoch = Views(ViewSpec(recipe="none"), 23, 19, 6, 1, 0).epoch(0)
    for count in (3, 4, 3, 5, 4, 6):
        images, ids = images_of(count, 23, 0), np.arange(count)
        assert torch.equal(by_masks(epoch, images, ids, [0], compute)[0], epoch.apply(images, ids, 0))
    assert len(compiled) == 2


@pytest.mark.slow
@pytest.mark.parametrize("recipe", ["moco_v2", "digits"])
def test_compiled(recipe: str) -> None:
    """By the compiler for CPUs; it may contract a product and a sum into one operation."""
    images, ids = images_of(6, 40, 0), np.arange(6)
    epoch = Views(ViewSpec(recipe=recipe), 40, 32, 6, 2, 0).epoch(0)
    compute = Compiled(masked_views)
    for _ in range(2):
        for got, want in zip(
            by_masks(epoch, images, ids, [0, 1], compute), epoch.apply_all(images, ids), strict=True
        ):
            torch.testing.assert_close(got, want, rtol=0, atol=1e-4)
    assert compute.works
