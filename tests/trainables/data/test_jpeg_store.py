"""`data.keep: jpeg`: whole pictures as JPEG, read as squares of any size."""

from __future__ import annotations

import io
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pictures import put
from PIL import Image
from tiny_trials import Log, tiny, workspace
from torchvision.transforms.v2 import functional as tv

import trainables.data.store
from trainables.core.errors import UserError
from trainables.data.data_sets import DataSet, open_data, store_folder
from trainables.data.encode_jpeg import as_jpeg, decoded, square
from trainables.data.jpeg_images import JpegImages
from trainables.data.store_images import StoreDamaged
from trainables.spec.trial import DataSpec
from trainables.training import loop
from trainables.training.resolve import resolve

TURNED = 6  # the EXIF orientation of a camera held upright


def smooth(width: int, height: int, phase: float = 0.0) -> Image.Image:
    x, y = np.meshgrid((np.arange(width) + 0.5) / width, (np.arange(height) + 0.5) / height)
    rgb = [0.5 + 0.4 * np.sin(2 * x + y + phase), 0.2 + 0.6 * x, 0.9 - 0.7 * y * x]
    return Image.fromarray((255 * np.stack(rgb, 2)).astype(np.uint8))


def jpeg(image: Image.Image, **more: object) -> bytes:
    file = io.BytesIO()
    image.save(file, "JPEG", **more)
    return file.getvalue()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """40 pictures of three shapes, two classes; two of the files are broken."""
    sizes = [(60, 40), (40, 60), (50, 50)]
    for i in range(40):
        content = jpeg(smooth(*sizes[i % 3], i / 7), quality=95)
        put(tmp_path / "raw" / f"class{i % 2}" / f"{i:02}.jpg", content if i not in (3, 8) else content[:300])
    return tmp_path / "raw"


def opened(folder: Path, cache: Path, **more: object) -> DataSet:
    usual = {"name": "folder", "path": folder, "image_size": 16, "keep": "jpeg", "short_side": 32}
    return open_data(DataSpec.model_validate({**usual, "max_undecodable": 0.1, **more}), cache)


# --- one picture --------------------------------------------------------------------------------------------


@given(st.integers(24, 90), st.integers(24, 90), st.integers(24, 48), st.sampled_from(["PNG", "JPEG"]))
def test_the_whole_picture_is_kept(width: int, height: int, short_side: int, kind: str) -> None:
    file, picture = io.BytesIO(), smooth(width, height)
    picture.save(file, kind, **({"quality": 95} if kind == "JPEG" else {}))
    content, aspect = as_jpeg(file.getvalue(), short_side)
    pixels = decoded(content, 64)
    assert aspect == width / height
    assert min(pixels.shape[1:]) == min(short_side, width, height)
    assert abs(pixels.shape[2] / pixels.shape[1] / aspect - 1) <= 0.5 / min(pixels.shape[1:])
    if kind == "JPEG" and min(width, height) <= short_side:
        assert content == file.getvalue(), "encoded again without need"
    want = torch.from_numpy(np.array(picture)).permute(2, 0, 1)
    error = (square(pixels, 8, True).int() - square(want, 8, True).int()).abs()
    assert error.max() <= 12 and error.float().mean() < 3


def test_other_pictures() -> None:
    exif = Image.Exif()
    exif[0x0112] = TURNED
    content, aspect = as_jpeg(jpeg(smooth(40, 20), exif=exif), 64)
    assert aspect == 0.5 and decoded(content, 64).shape == (3, 40, 20), "turned upright"
    grey = jpeg(smooth(40, 20).convert("L"))
    content, _ = as_jpeg(grey, 64)
    assert content == grey and decoded(content, 64).shape == (3, 20, 40)
    inks = Image.fromarray(np.zeros((30, 30, 4), np.uint8), "CMYK")
    assert decoded(as_jpeg(jpeg(inks), 64)[0], 64).min() > 250  # no ink is white
    with pytest.raises(OSError, match=r"(?i)truncated"):
        as_jpeg(jpeg(smooth(40, 20))[:400], 64)
    with pytest.raises(ValueError, match="floating-point grey"):
        as_jpeg(Image.fromarray(np.zeros((9, 9), np.float32)), 64)


# --- a store ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fit", ["centre", "whole"])
def test_squares_are_those_of_raw_pixels(folder: Path, tmp_path: Path, fit: str) -> None:
    data = opened(folder, tmp_path, fit=fit)
    raw = opened(folder, tmp_path, fit=fit, keep="raw", short_side=256)
    assert np.array_equal(data.train.labels, raw.train.labels) and data.left_out == raw.left_out != ""
    ids = np.arange(len(raw.train))
    difference = data.train.take(ids).int() - raw.train.take(ids).int()
    assert difference.abs().max() <= 12 and difference.float().abs().mean() < 2
    if fit == "whole":
        assert data.train.aspect is not None and np.array_equal(data.train.aspect, raw.train.aspect)
    else:
        assert data.train.aspect is None


def test_one_store_serves_all_sizes(folder: Path, tmp_path: Path) -> None:
    sets = [opened(folder, tmp_path, **more) for more in ({}, {"margin": 4}, {"fit": "whole"}, {})]
    assert len([p for p in (tmp_path / "images").iterdir() if p.is_dir()]) == 1
    assert [data.train.size for data in sets] == [16, 20, 16, 16]
    # What was computed for one shape is not taken for another's.
    assert len({data.fingerprint for data in sets}) == 3 and sets[0].fingerprint == sets[3].fingerprint
    opened(folder, tmp_path, short_side=24)
    assert len([p for p in (tmp_path / "images").iterdir() if p.is_dir()]) == 2


def test_threads_and_order_change_no_bit(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train = opened(folder, tmp_path, fit="whole").train
    ids = np.random.default_rng(0).integers(0, len(train), 100)
    one = train.take(ids)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 3)
    assert torch.equal(train.take(ids), one)
    assert torch.equal(train.take(ids[::-1].copy()), one.flip(0))
    assert torch.equal(pickle.loads(pickle.dumps(train)).take(ids[:5]), one[:5])
    monkeypatch.setattr("trainables.data.store_images._ADVISED_BYTES", 0)  # as of a large store
    large = pickle.loads(pickle.dumps(train))
    large.advise(ids)
    assert torch.equal(large.take(ids), one)


def test_the_way_of_the_gpu_gives_the_same_squares(folder: Path, tmp_path: Path) -> None:
    """Everything of it but the decoder, which is the CPU's here."""
    train = opened(folder, tmp_path, fit="whole", decoder="gpu").train
    assert isinstance(train, JpegImages) and train.gpu and pickle.loads(pickle.dumps(train)).gpu
    ids = np.arange(len(train))[::-1].copy()
    assert (train.take_on(ids, torch.device("cpu")).int() - train.take(ids).int()).abs().max() <= 1
    assert train.fingerprint != opened(folder, tmp_path, fit="whole").train.fingerprint


def test_a_damaged_jpeg_is_found_and_made_anew(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trainables.data.store, "CHECKED_BYTES", 0)
    data = opened(folder, tmp_path)
    spec = DataSpec(name="folder", path=folder, image_size=16, keep="jpeg", short_side=32)
    pixels = data.train.take(np.arange(30))
    file = store_folder(spec, tmp_path) / "train.arrow"
    content, part = file.read_bytes(), bytes(data.train._stored(17))
    where = content.index(part) + len(part) // 2
    file.write_bytes(content[:where] + bytes([content[where] ^ 4]) + content[where + 1 :])
    damaged = opened(folder, tmp_path)
    with pytest.raises(StoreDamaged, match="image 17 of"):
        damaged.train.take(np.array([3, 17]))
    again = opened(folder, tmp_path)
    assert again.fingerprint == data.fingerprint
    assert torch.equal(again.train.take(np.arange(30)), pixels)


def test_a_small_crop_is_the_pictures_own(tmp_path: Path) -> None:
    """A fifth of a picture, cut from the store, is what torchvision cuts from the file."""
    picture = smooth(480, 320, 1.0)
    for name in ("a/1.png", "b/1.png"):
        (tmp_path / "raw" / name).parent.mkdir(parents=True)
        picture.save(tmp_path / "raw" / name)
    train = opened(tmp_path / "raw", tmp_path, image_size=96, margin=32, short_side=128, fit="whole").train
    stored = train.take(np.zeros(1, np.int64))
    top, left, height, width = 20, 40, 57, 57  # in the square: of the picture's 320 x 480, 142 x 214
    got = tv.resized_crop(stored.float(), top, left, height, width, [96, 96], antialias=True)[0]
    box = [top * 2.5, left * 3.75, height * 2.5, width * 3.75]
    want = tv.resized_crop(tv.pil_to_tensor(picture).float(), *map(round, box), [96, 96], antialias=True)
    assert (got - want).abs().mean() < 1.5 and (got - want).abs().max() < 10


# --- a trial ------------------------------------------------------------------------------------------------

RAW = {"method": "moco", "preset": "digits", "student": {"arch": "test_resnet"}, "epochs": 1}


def test_identity() -> None:
    usual, jpegs = resolve(RAW), resolve({**RAW, "data": {"keep": "jpeg"}})
    finer = resolve({**RAW, "data": {"keep": "jpeg", "short_side": 384}})
    assert usual.signature() == resolve({**RAW, "data": {"keep": "raw", "short_side": 256}}).signature()
    assert len({trial.signature() for trial in (usual, jpegs, finer)}) == 3
    with pytest.raises(UserError, match=r"data\.short_side: is less than image_size.*at least 300"):
        resolve({**RAW, "data": {"keep": "jpeg", "image_size": 300}})
    with pytest.raises(UserError, match=r"data\.decoder: goes with `keep: jpeg`"):
        resolve({**RAW, "data": {"decoder": "gpu"}})
    with pytest.raises(UserError, match=r"data\.short_side: goes with `keep: jpeg`"):
        resolve({**RAW, "data": {"short_side": 300}})


def test_a_trial_trains_and_is_probed(tmp_path: Path) -> None:
    for i in range(200):
        picture = smooth(40, 24).rotate(0 if i % 2 else 180)
        put(tmp_path / "raw" / f"class{i % 2}" / f"{i:03}.jpg", jpeg(picture))
    data = {"name": "folder", "path": str(tmp_path / "raw"), "image_size": 16, "margin": 4}
    data |= {"fit": "whole", "keep": "jpeg", "short_side": 32}
    small = {"data": data, "views": {"recipe": "light"}, "optim": {"batch_size": 32}, "epochs": 1}
    trial = tiny("moco", config={"queue_size": 64}, probe={"score": "knn", "record": []}, **small)
    log = Log()
    loop.train(trial, log, workspace(tmp_path))
    assert log.epochs == [1] and log.reports[0].metrics["score"] > 50
