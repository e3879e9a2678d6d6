"""A view is a pure function of (seed, epoch, sample id, view), and what its recipe says."""

import contextlib
import dataclasses
import hashlib
import os
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torchvision.transforms.v2 import functional as tv

from trainables.core.errors import UserError
from trainables.spec.trial import ViewSpec
from trainables.views import grouped, parameter_table
from trainables.views import operations as ops
from trainables.views.augmented import EpochViews, Views, plain
from trainables.views.parameter_table import JITTER_ORDERS, NO_JITTER, draw
from trainables.views.recipes import LARGEST, RECIPES, Recipe, check_views, recipe_of

COUNT, IN, OUT = 50, 23, 19  # odd sizes: vectors of 8 or 16 leave a rest
AUGMENTING = [name for name in RECIPES if name != "none"]


def random_images(count: int, side: int) -> Tensor:
    numbers = torch.randint(0, 256, (count, 3, side, side), generator=torch.Generator().manual_seed(0))
    return numbers.to(torch.uint8)


IMAGES = random_images(COUNT, IN)


def epoch_of(
    recipe: str, *, strength: float = 1.0, seed: int = 0, epoch: int = 0, views: int = 2
) -> EpochViews:
    spec = ViewSpec(recipe=recipe, strength=strength)
    return Views(spec, IN, OUT, COUNT, views, seed).epoch(epoch)


def view_of(recipe: str, ids: np.ndarray | None = None, view: int = 0, **more: float) -> Tensor:
    ids = np.arange(COUNT) if ids is None else ids
    return epoch_of(recipe, **more).apply(IMAGES[torch.from_numpy(ids)], ids, view)  # type: ignore[arg-type]


@contextlib.contextmanager
def threads_set_to(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@settings(max_examples=40)
@given(
    recipe=st.sampled_from(sorted(RECIPES)),
    strength=st.sampled_from([0.0, 0.5, 1.0, 2.0]),
    seed=st.integers(-3, 2**33),
    epoch=st.integers(0, 1000),
    view=st.integers(0, 1),
    ids=st.lists(st.integers(0, COUNT - 1), min_size=1, max_size=COUNT),
    threads=st.integers(1, 2),
)
def test_same_bits_in_any_batch(
    recipe: str, strength: float, seed: int, epoch: int, view: int, ids: list[int], threads: int
) -> None:
    whole = view_of(recipe, view=view, strength=strength, seed=seed, epoch=epoch)
    rows = np.array(ids)
    with threads_set_to(threads):
        part = view_of(recipe, rows, view, strength=strength, seed=seed, epoch=epoch)
    assert torch.equal(part, whole[rows])
    assert torch.isfinite(whole).all()


@pytest.mark.parametrize("recipe", AUGMENTING)
@pytest.mark.parametrize("size", [(40, 32), (256, 224)])
def test_same_bits_in_any_piece(recipe: str, size: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    # Real sizes, where threads share an image and a batch is worked through in pieces.
    side, out = size
    images = random_images(6, side)
    epoch = Views(ViewSpec(recipe=recipe), side, out, 6, 1, 0).epoch(0)
    want = epoch.apply(images, np.arange(6), 0)
    for piece in (1, 3 * 2 * out**2, 10**9):
        monkeypatch.setattr(grouped, "PIECE", piece)
        for count in (1, 2):
            with threads_set_to(count):
                assert torch.equal(epoch.apply(images, np.arange(6), 0), want)


HASHES = """
import hashlib, numpy as np, torch
from trainables.spec.trial import ViewSpec
from trainables.views.augmented import Views
images = torch.arange(12 * 3 * 23 * 23).remainder(251).to(torch.uint8).view(12, 3, 23, 23)
for recipe in ("moco_v2", "solo_learn", "light", "cifar", "digits", "none"):
    epoch = Views(ViewSpec(recipe=recipe), 23, 19, 12, 2, 5).epoch(3)
    ids = np.arange(12)[::-1].copy()
    print(hashlib.sha256(epoch.apply(images, ids, 1).numpy().tobytes()).hexdigest())
"""


def test_same_bits_in_another_process() -> None:
    env = {**os.environ, "OMP_NUM_THREADS": "3"}
    said = subprocess.run([sys.executable, "-c", HASHES], capture_output=True, text=True, check=True, env=env)
    images = torch.arange(12 * 3 * 23 * 23).remainder(251).to(torch.uint8).view(12, 3, 23, 23)
    ids = np.arange(12)[::-1].copy()
    here = []
    for recipe in ("moco_v2", "solo_learn", "light", "cifar", "digits", "none"):
        epoch = Views(ViewSpec(recipe=recipe), 23, 19, 12, 2, 5).epoch(3)
        parts = [epoch.apply(images[i : i + 1], ids[i : i + 1], 1) for i in range(12)]
        here.append(hashlib.sha256(torch.cat(parts).numpy().tobytes()).hexdigest())
    assert said.stdout.split() == here


@pytest.mark.parametrize("recipe", AUGMENTING)
def test_everything_decides(recipe: str) -> None:
    one = view_of(recipe)
    assert torch.equal(one, view_of(recipe))
    for other in (view_of(recipe, view=1), view_of(recipe, seed=1), view_of(recipe, epoch=1)):
        same = (one == other).all(dim=(1, 2, 3))
        assert same.sum() < COUNT / 10
    # The same picture under two ids is seen twice differently.
    epoch = epoch_of(recipe)
    assert not torch.equal(
        epoch.apply(IMAGES[:1], np.array([0]), 0), epoch.apply(IMAGES[:1], np.array([1]), 0)
    )


@pytest.mark.parametrize("recipe", AUGMENTING)
def test_common_random_numbers(recipe: str) -> None:
    # One view or three: the first is the same.
    assert torch.equal(view_of(recipe, views=1), view_of(recipe, views=3))
    # At another strength every sample turns, shifts or shines the same way, by another amount.
    weak, strong = (epoch_of(recipe, strength=s).tables[0] for s in (0.5, 1.0))
    if "corner" in weak:
        np.testing.assert_array_equal(weak["flip"], strong["flip"])
    elif "matrix" in weak:
        np.testing.assert_allclose(2 * weak["matrix"][:, 0, 1] / strong["matrix"][:, 0, 1], 1, atol=0.5)
        np.testing.assert_allclose(weak["gain"] - 1, (strong["gain"] - 1) / 2, atol=1e-6)
    else:
        np.testing.assert_array_equal(weak["flip"], strong["flip"])
        # An operation more does not shift what the others get.
        like = "light" if RECIPES[recipe].crop == 0.8 else "imagenet"
        np.testing.assert_array_equal(strong["crop"], epoch_of(like).tables[0]["crop"])
    if "order" in weak:
        np.testing.assert_array_equal(weak["order"], strong["order"])
        np.testing.assert_allclose(weak["factors"][:, 3], strong["factors"][:, 3] / 2, atol=1e-6)


def by_torchvision(table: dict[str, np.ndarray], i: int) -> Tensor:
    """Sample i's view, from the table of parameters and torchvision's operations alone."""
    p = {name: values[i] for name, values in table.items()}
    x = IMAGES[i].double() / 255
    if "crop" in p:
        x = tv.resized_crop(x, *p["crop"].tolist(), size=[OUT, OUT], antialias=True)
        x = tv.horizontal_flip(x) if p["flip"] else x
    if "corner" in p:
        x = tv.pad(x, [OUT, OUT])  # more than can be asked for
        x = tv.crop(x, *(p["corner"].astype(int) + OUT).tolist(), OUT, OUT)
        x = tv.horizontal_flip(x) if p["flip"] else x
    if "matrix" in p:
        # torchvision takes angles and we keep matrices, so sample by its grid.
        theta = torch.from_numpy(p["matrix"]).double()
        grid = torch.nn.functional.affine_grid(
            torch.eye(2, 3).double()[None], [1, 3, OUT, OUT], align_corners=False
        )
        pixels = grid * OUT / 2
        where = (pixels @ theta[:, :2].T + theta[:, 2]) * 2 / IN
        x = torch.nn.functional.grid_sample(x[None], where, align_corners=False)[0]
    if "order" in p and p["order"] != NO_JITTER:
        names = ("brightness", "contrast", "saturation", "hue")
        for which in JITTER_ORDERS[p["order"]]:
            x = getattr(tv, f"adjust_{names[which]}")(x, float(p["factors"][which]))
    if p.get("grayscale"):
        x = tv.rgb_to_grayscale(x, num_output_channels=3)
    if p.get("sigma", 0) > 0:
        x = tv.gaussian_blur(x, [3, 3], [float(p["sigma"])] * 2)
    if p.get("solarise"):
        x = torch.where(x >= 128 / 255, 1 - x, x)
    if "gain" in p:
        x = tv.adjust_brightness(x, float(p["gain"]))
        added = ops.noise(torch.tensor([int(p["noise_key"])]), OUT * OUT).view(1, OUT, OUT)
        x = (x + added * float(p["noise_sigma"])).clamp(0, 1)
        x = tv.erase(x, *p["erase"].tolist(), v=torch.zeros(1).double())
    return tv.normalize(x, list(ops.MEAN), list(ops.STD)).float()


@pytest.mark.parametrize("recipe", AUGMENTING)
def test_whole_recipes_agree_with_torchvision(recipe: str) -> None:
    table = epoch_of(recipe, seed=7).tables[1]
    want = torch.stack([by_torchvision(table, i) for i in range(COUNT)])
    # In units of the normalised view, whose range is about 4.5.
    torch.testing.assert_close(view_of(recipe, view=1, seed=7), want, rtol=0, atol=2e-4)


@pytest.mark.parametrize("recipe", ["digits", "none"])
def test_without_strength_the_centre_is_left(recipe: str) -> None:
    assert torch.equal(view_of(recipe, strength=0), plain(IMAGES, OUT))
    square = Views(ViewSpec(recipe=recipe, strength=0), IN, IN, COUNT, 1, 0).epoch(0)
    assert torch.equal(square.apply(IMAGES, np.arange(COUNT), 0), plain(IMAGES, IN))


@pytest.mark.parametrize("recipe", ["moco_v2", "ssl_small", "light", "imagenet", "cifar"])
def test_without_strength_flips_are_left(recipe: str) -> None:
    square = Views(ViewSpec(recipe=recipe, strength=0), IN, IN, COUNT, 1, 0).epoch(0)
    got = square.apply(IMAGES, np.arange(COUNT), 0)
    flip = torch.from_numpy(square.tables[0]["flip"])
    want = torch.where(flip[:, None, None, None], plain(IMAGES, IN).flip(3), plain(IMAGES, IN))
    torch.testing.assert_close(got, want, rtol=0, atol=2e-5)


def test_plain_is_the_normalised_centre() -> None:
    got = plain(IMAGES, OUT)
    want = tv.normalize(IMAGES[:, :, 2:21, 2:21] / 255, list(ops.MEAN), list(ops.STD))
    torch.testing.assert_close(got, want)
    assert IMAGES.dtype == torch.uint8  # and the images are as they were
    assert torch.equal(plain(IMAGES[3:4], OUT), got[3:4])


def test_images_are_left_alone() -> None:
    for recipe in RECIPES:
        images = IMAGES.clone()
        Views(ViewSpec(recipe=recipe), IN, IN, COUNT, 1, 0).epoch(0).apply(images, np.arange(COUNT), 0)
        assert torch.equal(images, IMAGES)


def table_of(recipe: str, strength: float = 1.0, count: int = 20_000) -> dict[str, np.ndarray]:
    return draw(RECIPES[recipe], strength, 64, 56, count, np.random.default_rng(0))


def test_crops_are_those_of_random_resized_crop() -> None:
    box = table_of("moco_v2")["crop"].astype(float)
    top, left, height, width = box.T
    assert (
        (top >= 0).all() and (left >= 0).all() and (top + height <= 64).all() and (left + width <= 64).all()
    )
    share = height * width / 64**2
    assert share.min() > 0.18 and share.max() == 1
    # Sides are rounded to pixels, so bounds have that much slack.
    assert (width / height).min() > 3 / 4 - 0.05 and (width / height).max() < 4 / 3 + 0.05
    # Half of the area shares lie below .6 before those that do not fit are drawn again, a few more after.
    assert 0.5 < (share < 0.6).mean() < 0.6
    assert abs((top / np.maximum(64 - height, 1))[height < 50].mean() - 0.5) < 0.02
    gentle = table_of("moco_v2", 0.25)["crop"].astype(float)
    assert (gentle[:, 2] * gentle[:, 3] / 64**2).min() > 0.78


def test_rates_and_ranges_are_the_recipes() -> None:
    table = table_of("moco_v2")
    rates = {
        "flip": (table["flip"], 0.5),
        "jitter": (table["order"] != NO_JITTER, 0.8),
        "grayscale": (table["grayscale"], 0.2),
        "blur": (table["sigma"] > 0, 0.5),
    }
    for name, (on, rate) in rates.items():
        assert abs(on.mean() - rate) < 0.015, name
    assert np.bincount(table["order"][table["order"] != NO_JITTER], minlength=24).min() > 550  # of 667
    for i, (low, high) in enumerate([(0.6, 1.4)] * 3 + [(-0.1, 0.1)]):
        factors = table["factors"][:, i]
        assert (
            low <= factors.min() < low + 0.01 * (high - low)
            and high - 0.01 * (high - low) < factors.max() <= high
        )
    blurred = table["sigma"][table["sigma"] > 0]
    assert 0.1 <= blurred.min() < 0.11 and 1.99 < blurred.max() <= 2

    small = table_of("ssl_small")
    assert abs(small["grayscale"].mean() - 0.5) < 0.015
    assert small["factors"][:, 3].max() < 0.4 and table_of("ssl_small", 2)["factors"][:, 3].max() <= 0.5
    assert table_of("ssl_small", 2)["factors"].min(axis=0)[:3].min() >= 0


def test_digits_are_turned_by_at_most_twenty_degrees() -> None:
    table = table_of("digits")
    recipe = RECIPES["digits"]
    a, b, c, d = table["matrix"][:, :, :2].reshape(-1, 4).T.astype(float)
    size = 1 / np.sqrt(a * d - b * c)  # the determinant of rotation and shears is 1
    assert 1 - recipe.scale - 1e-3 < size.min() < 1 - recipe.scale + 0.01
    assert 1 + recipe.scale - 0.01 < size.max() < 1 + recipe.scale + 1e-3
    turned = draw(Recipe(rotate=20), 1.0, 64, 56, 20_000, np.random.default_rng(0))["matrix"]
    degrees = np.degrees(np.arctan2(turned[:, 0, 1], turned[:, 0, 0]))
    assert -20.001 < degrees.min() < -19.9 and 19.9 < degrees.max() < 20.001
    still = table_of("digits", 0.0)["matrix"]
    np.testing.assert_allclose(still, np.broadcast_to(np.eye(2, 3), still.shape), atol=1e-7)
    height, width = table["erase"][:, 2:].T
    assert abs((height > 0).mean() - 0.5) < 0.015 and max(height.max(), width.max()) == round(
        56 * recipe.erase
    )
    assert (table["erase"][:, 0] + height).max() <= 56 and (table["erase"][:, 1] + width).max() <= 56
    assert table["noise_sigma"].min() >= 0 and table["noise_sigma"].max() <= recipe.noise
    assert len(np.unique(table["noise_key"])) > 19_990
    assert table["gain"].min() >= 0.7 - 1e-6 and table["gain"].max() <= 1.3 + 1e-6


@pytest.mark.parametrize(
    ("recipe", "size"), [("moco_v2", 31), ("light", 9), ("cifar", 5), ("digits", 44), ("none", 0)]
)
def test_a_table_is_as_small_as_promised(recipe: str, size: int) -> None:
    assert sum(values.nbytes for values in table_of(recipe, count=1000).values()) == 1000 * size


def test_names() -> None:
    known = ["moco_v2", "ssl_small", "solo_learn", "imagenet", "light", "cifar", "digits", "none"]
    assert list(RECIPES) == known
    assert ViewSpec.model_fields["recipe"].description == " | ".join(known)
    with pytest.raises(UserError, match=r"views.recipe: .*'moco'.*Did you mean 'moco_v2'"):
        check_views(ViewSpec(recipe="moco"))
    with pytest.raises(UserError):
        Views(ViewSpec(recipe="moco"), 8, 8, 1, 1, 0)


# --- the second view's own recipe, and numbers that a trial changes -----------------------------------------


def test_solo_learns_pair_is_asymmetric() -> None:
    """`--saturation 0.2 --gaussian_prob 1.0 0.1 --solarization_prob 0.0 0.2`, crops from .08."""
    first, second, third = Views(ViewSpec(recipe="solo_learn"), 64, 56, 20_000, 3, 0).epoch(0).tables
    assert (first["sigma"] > 0).all() and (third["sigma"] > 0).all()
    assert abs((second["sigma"] > 0).mean() - 0.1) < 0.01
    assert "solarise" not in first and abs(second["solarise"].mean() - 0.2) < 0.01
    for table in (first, second):
        height, width = table["crop"][:, 2:].T.astype(float)
        assert 0.08 * 0.85 < (height * width / 64**2).min() < 0.09
        spread = np.abs(table["factors"] - [1, 1, 1, 0]).max(0)
        np.testing.assert_allclose(spread, [0.4, 0.4, 0.2, 0.1], rtol=0.01)


@settings(max_examples=20)
@given(
    seed=st.integers(0, 2**33),
    epoch=st.integers(0, 1000),
    ids=st.lists(st.integers(0, COUNT - 1), min_size=1, max_size=COUNT),
    recipe=st.sampled_from(["moco_v2", "light", "cifar", "solo_learn"]),
)
def test_only_the_second_view_has_its_own_numbers(seed: int, epoch: int, ids: list[int], recipe: str) -> None:
    """Of the same draws: the first and the third view keep every bit, whatever the second does."""
    rows = np.array(ids)
    plain_pair, changed = (
        Views(ViewSpec(recipe=recipe, second=second), IN, OUT, COUNT, 3, seed).epoch(epoch)
        for second in ({"solarise": 0.0, "blur": 0.0}, {"solarise": 1.0, "blur": 0.0})
    )
    images = IMAGES[torch.from_numpy(rows)]
    for view in (0, 2):
        assert torch.equal(changed.apply(images, rows, view), plain_pair.apply(images, rows, view))
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (ops.MEAN, ops.STD))
    before = plain_pair.apply(images, rows, 1) * std + mean
    after = changed.apply(images, rows, 1) * std + mean
    bright = before >= 128 / 255
    edge = (before - 128 / 255).abs() < 1e-5
    want = torch.where(bright, 1 - before, before)
    torch.testing.assert_close(after[~edge], want[~edge], rtol=0, atol=1e-5)


def test_operations_are_changed_in_every_view() -> None:
    blurred = ViewSpec(recipe="moco_v2", operations={"blur": 1, "jitter": [0.4, 0.4, 0.2, 0.1]})
    for view in (0, 1, 2):
        recipe = recipe_of(blurred, view)
        assert (recipe.blur, recipe.jitter, recipe.crop) == (1.0, (0.4, 0.4, 0.2, 0.1), 0.8)
    both = ViewSpec(recipe="solo_learn", operations={"blur": 0.5}, second={"solarise": 0})
    assert [recipe_of(both, view).blur for view in (0, 1)] == [0.5, 0.5]
    assert recipe_of(both, 1).solarise == 0 and recipe_of(ViewSpec(recipe="solo_learn"), 1).solarise == 0.2
    turned = ViewSpec(recipe="none", operations={"flip": 1})  # no crop, and yet a flip
    got = Views(turned, IN, OUT, COUNT, 1, 0).epoch(0).apply(IMAGES, np.arange(COUNT), 0)
    assert torch.equal(got, plain(IMAGES, OUT).flip(3))


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"operations": {"blurr": 1}}, r"views\.operations\.blurr: .*Did you mean 'blur'"),
        ({"second": {"solarize": 0.2}}, r"views\.second\.solarize: .*Did you mean 'solarise'"),
        ({"second": {"solarise": 1.2}}, r"views\.second\.solarise: .*\(got 1\.2\).*from 0 to 1"),
        ({"operations": {"crop": -0.1}}, r"views\.operations\.crop: .*from 0 to 0\.95"),
        ({"operations": {"crop": [0.1, 1.0]}}, r"views\.operations\.crop: .*from 0 to 0\.95"),
        ({"operations": {"jitter": 0.4}}, r"views\.operations\.jitter: .*four numbers"),
        ({"operations": {"jitter": [0.4, 0.4, 0.4]}}, r"views\.operations\.jitter: .*four numbers"),
        ({"operations": {"jitter": [0.4, 0.4, 0.4, 0.6]}}, r"views\.operations\.jitter: .*hue up to 0\.5"),
        ({"recipe": "moco_v2", "second": {"rotate": 20}}, r"views\.second: .*exclude each other.*`crop: 0`"),
        ({"recipe": "cifar", "operations": {"crop": 0.8}}, r"views\.operations: .*exclude each other"),
    ],
)
def test_operations_that_cannot_be(fields: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=said):
        check_views(ViewSpec(**fields))


def test_every_operation_has_a_largest_number() -> None:
    named = {field.name for field in dataclasses.fields(Recipe)} - {"summary", "second"}
    assert set(LARGEST) == named
    for recipe in RECIPES.values():
        assert recipe.augments == (recipe is not RECIPES["none"])
        for view in ({}, recipe.second):
            for name, value in {**recipe.operations, **view}.items():
                pairs = zip(np.atleast_1d(value), np.atleast_1d(LARGEST[name]), strict=True)
                assert all(0 <= number <= largest for number, largest in pairs), name


def test_later_operations_shift_no_earlier_draw(monkeypatch: pytest.MonkeyPatch) -> None:
    """Streams are appended: recipes without `pad` and `solarise` draw what they did before these came."""
    names = ("moco_v2", "ssl_small", "light", "digits", "none")
    now = [table_of(name, count=50) for name in names]
    monkeypatch.setattr(parameter_table, "STREAMS", parameter_table.STREAMS[:9])
    assert parameter_table.STREAMS[-1] == "erase"
    for table, name in zip(now, names, strict=True):
        before = table_of(name, count=50)
        assert list(before) == list(table)
        for column, values in before.items():
            np.testing.assert_array_equal(table[column], values)


@pytest.mark.parametrize(("side", "out", "border"), [(32, 32, 4), (36, 32, 4), (40, 32, 0)])
def test_padded_crops_lie_anywhere_in_the_image_with_its_border(side: int, out: int, border: int) -> None:
    found = parameter_table.corners(20_000, side, out, border, np.random.default_rng(0))
    places = np.arange(-border, side + border - out + 1)
    for axis in (0, 1):
        values, counts = np.unique(found[:, axis], return_counts=True)
        np.testing.assert_array_equal(values, places)
        assert counts.min() > 0.85 * 20_000 / len(places)


def test_wrong_use() -> None:
    with pytest.raises(ValueError, match="from images of"):
        Views(ViewSpec(), 8, 9, 1, 1, 0)
    epoch = epoch_of("light")
    for images, ids in [
        (IMAGES.float(), np.arange(COUNT)),
        (IMAGES[:, :, 1:], np.arange(COUNT)),
        (IMAGES, np.arange(COUNT - 1)),
        (IMAGES[:1], np.array([-1])),
    ]:
        with pytest.raises(ValueError):
            epoch.apply(images, ids, 0)
    with pytest.raises(IndexError):
        epoch.apply(IMAGES[:1], np.array([COUNT]), 0)
    assert epoch.apply(IMAGES[:0], np.zeros(0, np.int64), 0).shape == (0, 3, OUT, OUT)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("recipe", sorted(RECIPES))
def test_on_a_gpu(recipe: str) -> None:
    epoch, ids = epoch_of(recipe), torch.arange(COUNT)
    there = epoch.apply(IMAGES.cuda(), ids.cuda(), 0)
    assert there.is_cuda
    torch.testing.assert_close(there.cpu(), epoch.apply(IMAGES, ids, 0), rtol=0, atol=1e-4)
