"""`data.fit: whole`: pictures that are no squares, cropped as torchvision crops the pictures themselves."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy.stats import ks_2samp
from tiny_trials import Log, tiny, workspace
from torch import Tensor
from torchvision.transforms import RandomResizedCrop
from torchvision.transforms.v2 import functional as tv

from tests.helpers.flat import unflatten
from trainables.core.errors import UserError
from trainables.data.data_sets import open_data, store_folder
from trainables.data.decode import decode, decode_whole
from trainables.data.store import load_store
from trainables.spec.trial import DataSpec, ViewSpec
from trainables.training import loop
from trainables.training.flat_names import flatten
from trainables.training.resolve import resolve
from trainables.views import operations as ops
from trainables.views.augmented import Views, plain
from trainables.views.parameter_table import centre, crops
from trainables.views.recipes import RECIPES

SIDE, OUT = 64, 48
RATIO = math.log(4 / 3)


def smooth(width: int, height: int) -> Image.Image:
    """A picture without edges, so that resizing twice is as good as once; no two places of it are alike."""
    x, y = np.meshgrid((np.arange(width) + 0.5) / width, (np.arange(height) + 0.5) / height)
    rgb = [0.5 + 0.4 * np.sin(2 * x + y), 0.2 + 0.6 * x, 0.9 - 0.7 * y * x]
    return Image.fromarray((255 * np.stack(rgb, 2)).astype(np.uint8))


def stored(*sizes: tuple[int, int]) -> tuple[Tensor, np.ndarray]:
    found = [decode_whole(smooth(*size), SIDE) for size in sizes]
    return torch.from_numpy(np.stack([p for p, _ in found])), np.array([a for _, a in found], np.float32)


def folder_of(root: Path, *sizes: tuple[int, int], count: int = 12) -> Path:
    for i in range(count):
        path = root / f"class{i % 2}" / f"{i:03}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        smooth(*sizes[i % len(sizes)]).rotate(0 if i < 6 else 180).save(path)
    return root


# --- crops --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("width, height", [(500, 375), (375, 500), (640, 240), (300, 300)])
def test_area_and_ratio_are_those_of_torchvision_on_the_picture(width: int, height: int) -> None:
    count, side = 4000, 1024
    aspect = np.full(count, width / height, np.float32)
    box = crops(count, side, 0.8, RATIO, np.random.default_rng(0), aspect).astype(float)
    own = box * [height / side, width / side, height / side, width / side]
    image = torch.zeros(1, height, width)
    torch.manual_seed(0)
    theirs = np.array([RandomResizedCrop.get_params(image, [0.2, 1], [3 / 4, 4 / 3]) for _ in range(count)])
    for name, of in {
        "area": lambda b: b[:, 2] * b[:, 3] / (width * height),
        "ratio": lambda b: b[:, 3] / b[:, 2],
        "middle, down": lambda b: (b[:, 0] + b[:, 2] / 2) / height,
        "middle, right": lambda b: (b[:, 1] + b[:, 3] / 2) / width,
    }.items():
        noise = np.random.default_rng(1).uniform(-0.002, 0.002, (2, count))  # both are rounded to pixels
        assert ks_2samp(of(own) + noise[0], of(theirs) + noise[1]).pvalue > 1e-3, name
    assert (box[:, 0] + box[:, 2]).max() == side and box[:, :2].min() == 0, "the borders are seen"


@settings(max_examples=60)
@given(aspect=st.floats(0.05, 20), lost=st.floats(0, 0.95), seed=st.integers(0, 99))
def test_every_box_lies_within_the_picture_and_the_ratio(aspect: float, lost: float, seed: int) -> None:
    box = crops(200, SIDE, lost, RATIO, np.random.default_rng(seed), np.full(200, aspect, np.float32))
    top, left, height, width = box.astype(int).T
    assert (top >= 0).all() and (left >= 0).all() and (height >= 1).all() and (width >= 1).all()
    assert (top + height <= SIDE).all() and (left + width <= SIDE).all()
    # Within the ratio, but for the rounding of either side to a pixel.
    assert ((width + 0.51) * aspect / np.maximum(height - 0.51, 1e-9) >= 3 / 4).all()
    assert ((width - 0.51) * aspect / (height + 0.51) <= 4 / 3).all()


@pytest.mark.parametrize("width, height", [(1000, 200), (200, 1000), (1000, 100)])
def test_where_nothing_fits_it_is_torchvision_s_centre(width: int, height: int) -> None:
    """Full area within 3/4 to 4/3 never fits so long a picture: both fall back on the largest box."""
    box = crops(3, 512, 0.0, RATIO, np.random.default_rng(0), np.full(3, width / height, np.float32))
    i, j, h, w = RandomResizedCrop.get_params(torch.zeros(1, height, width), [1, 1], [3 / 4, 4 / 3])
    want = np.array([i / height, j / width, h / height, w / width]) * 512
    assert np.abs(box - want).max() <= 1.0


@pytest.mark.parametrize("recipe", RECIPES)
def test_squares_have_today_s_bits(recipe: str) -> None:
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (20, 3, SIDE, SIDE), generator=generator).to(torch.uint8)
    ids, ones = np.arange(20), np.ones(20, np.float32)
    spec = ViewSpec(recipe=recipe)
    before = Views(spec, SIDE, OUT, 20, 2, 3).epoch(1)
    after = Views(spec, SIDE, OUT, 20, 2, 3, ones).epoch(1)
    for view in range(2):
        assert torch.equal(before.apply(images, ids, view), after.apply(images, ids, view))
    assert torch.equal(plain(images, OUT), plain(images, OUT, ones))
    square = Image.fromarray(images[0].permute(1, 2, 0).numpy()).resize((150, 150))
    assert np.array_equal(decode(square, SIDE), decode_whole(square, SIDE)[0])
    assert decode_whole(square, SIDE)[1] == 1.0


# --- pixels -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [(160, 120), (120, 160), (200, 100), (100, 250)])
def test_a_view_is_the_crop_of_the_picture_itself(size: tuple[int, int]) -> None:
    width, height = size
    images, aspect = stored(size)
    ids = np.zeros(1, np.int64)
    for seed in range(5):
        epoch = Views(ViewSpec(recipe="light"), SIDE, OUT, 1, 1, seed, aspect).epoch(0)
        top, left, tall, wide = (int(x) for x in epoch.tables[0]["crop"][0])
        box = [top * height / SIDE, left * width / SIDE, tall * height / SIDE, wide * width / SIDE]
        picture = tv.pil_to_tensor(smooth(*size)).float() / 255
        want = tv.resized_crop(picture, *(round(x) for x in box), [OUT, OUT], antialias=True)
        if epoch.tables[0]["flip"][0]:
            want = tv.horizontal_flip(want)
        got = epoch.apply(images, ids, 0)[0] * torch.tensor(ops.STD).view(3, 1, 1)
        got += torch.tensor(ops.MEAN).view(3, 1, 1)
        assert (got - want).abs().max() < 0.03


@pytest.mark.parametrize("size", [(160, 120), (120, 160), (200, 100), (100, 250), (130, 130)])
@pytest.mark.parametrize("recipe", ["plain", "none", "digits"])
def test_the_evaluation_is_the_shorter_side_resized_and_the_centre_cropped(
    size: tuple[int, int], recipe: str
) -> None:
    images, aspect = stored(size)
    whole = tv.pil_to_tensor(smooth(*size)).float() / 255
    want = tv.normalize(
        tv.center_crop(tv.resize(whole, [SIDE], antialias=True), [OUT, OUT]), list(ops.MEAN), list(ops.STD)
    )
    if recipe == "plain":
        got = plain(images, OUT, aspect)
    else:  # without augmentation these are the same view
        spec = ViewSpec(recipe=recipe, strength=0)
        got = Views(spec, SIDE, OUT, 1, 1, 0, aspect).epoch(0).apply(images, np.zeros(1, np.int64), 0)
    assert (got[0] - want).abs().max() < 0.12  # in deviations: .03 of a pixel's range
    table = centre(aspect, SIDE, OUT)["crop"][0]
    assert abs(table[3] * size[0] / (table[2] * size[1]) - 1) < 0.05, "no picture is squeezed"


# --- store and identity -------------------------------------------------------------------------------------


def test_the_store_keeps_shapes_and_is_another_one(tmp_path: Path) -> None:
    sizes = ((40, 20), (20, 40), (30, 30))
    path = folder_of(tmp_path / "raw", *sizes)
    spec, usual = (DataSpec(name="folder", path=path, image_size=16, fit=fit) for fit in ("whole", "centre"))
    data, squares = open_data(spec, tmp_path / "cache"), open_data(usual, tmp_path / "cache")
    assert squares.train.aspect is None and data.train.aspect is not None
    assert np.array_equal(data.train.labels, squares.train.labels)
    by_name = [sizes[i % 3] for half in (0, 1) for i in range(half, 12, 2)]  # the source lists class by class
    assert data.train.aspect.tolist() == [width / height for width, height in by_name]
    assert data.fingerprint != squares.fingerprint and store_folder(spec, tmp_path) != store_folder(
        usual, tmp_path
    )
    # A shape that is not what was written is found out as a label is.
    again = open_data(spec, tmp_path / "cache")
    assert again.fingerprint == data.fingerprint
    file = store_folder(spec, tmp_path / "cache") / "train.arrow"
    content = file.read_bytes()
    shapes = data.train.aspect.tobytes()
    assert content.count(shapes) == 1
    damaged = np.array(data.train.aspect)
    damaged[0] = 3.0
    file.write_bytes(content.replace(shapes, damaged.tobytes()))
    assert load_store(file.parent) is None
    assert open_data(spec, tmp_path / "cache").fingerprint == data.fingerprint, "made anew"


def test_only_what_is_not_the_default_is_in_the_identity() -> None:
    raw: dict[str, Any] = {
        "method": "moco",
        "preset": "digits",
        "student": {"arch": "test_resnet"},
        "epochs": 1,
    }
    usual, same = resolve(raw), resolve({**raw, "data": {"fit": "centre"}})
    whole = resolve({**raw, "data": {"fit": "whole"}})
    assert usual.signature() == same.signature() != whole.signature() and usual.arm() != whole.arm()
    assert "fit" not in usual._identity()["data"] and whole._identity()["data"]["fit"] == "whole"
    assert resolve(unflatten(flatten(whole))) == whole
    with pytest.raises(UserError, match=r"data\.fit: no such choice .*Did you mean 'whole'"):
        resolve({**raw, "data": {"fit": "hole"}})


def test_a_trial_trains_and_is_probed_on_whole_pictures(tmp_path: Path) -> None:
    path = folder_of(tmp_path / "raw", (40, 24), (24, 40), count=300)
    data = {"name": "folder", "path": str(path), "image_size": 16, "margin": 4, "fit": "whole"}
    small = {"data": data, "views": {"recipe": "light"}, "optim": {"batch_size": 32}, "epochs": 1}
    trial = tiny("moco", config={"queue_size": 64}, probe={"score": "knn", "record": []}, **small)
    log = Log()
    loop.train(trial, log, workspace(tmp_path))
    assert log.epochs == [1] and log.reports[0].metrics["score"] > 50
