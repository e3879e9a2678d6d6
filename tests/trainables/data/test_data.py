"""The store: made once, whole or not at all, known again, and mended."""

import os
import pickle
import shutil
import signal
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_digits
from torchvision.transforms.v2 import functional as tv

import trainables.data.store
import trainables.data.store_writer
from trainables.core.errors import UserError
from trainables.core.files import cache_folder
from trainables.data.data_sets import check_data, open_data, store_folder
from trainables.data.decode import decode
from trainables.data.splits import class_sizes
from trainables.data.store_images import StoreDamaged
from trainables.spec.trial import DataSpec

SIZE = 12


def write_image(path: Path, seed: int, size: tuple[int, int] = (20, 16)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """60 images of two classes, no test part."""
    for i in range(60):
        write_image(tmp_path / "raw" / f"class{i % 2}" / f"{i:03}.png", i)
    return tmp_path / "raw"


def spec_of(folder: Path, **more: object) -> DataSpec:
    return DataSpec.model_validate({"name": "folder", "path": folder, "image_size": SIZE, **more})


def stores(cache: Path) -> list[Path]:
    return sorted(path for path in (cache / "images").iterdir() if path.is_dir())


def test_digits(tmp_path: Path) -> None:
    data = open_data(DataSpec(image_size=8), tmp_path)
    assert data.test is not None and data.classes == 10
    assert (len(data.train), len(data.test)) == (1348, 449)
    assert (len(data.train_ids), len(data.val_ids)) == (899, 449)
    facts = check_data(DataSpec(image_size=8))
    assert (facts.train_images, facts.classes) == (899, 10)
    assert (facts.probe_images, facts.validation_images, facts.test_images) == (899, 449, 449)
    assert facts.class_images == class_sizes(data.train.labels[data.probe_ids], 10)
    # Every digit is there once, in one part or the other, and its pixels are scikit-learn's.
    stored = np.concatenate([part.take(np.arange(len(part))).numpy() for part in (data.train, data.test)])
    known = np.rint(load_digits().images * 255 / 16).astype(np.uint8)
    assert (stored == stored[:, :1]).all()
    assert sorted(image.tobytes() for image in stored[:, 0]) == sorted(image.tobytes() for image in known)


def test_splits_do_not_overlap_and_follow_the_seed(tmp_path: Path) -> None:
    data = open_data(DataSpec(), tmp_path)
    assert not set(data.val_ids) & set(data.train_ids)
    assert set(data.val_ids) | set(data.train_ids) == set(range(len(data.train)))
    np.testing.assert_array_equal(data.probe_ids, data.train_ids)
    other = open_data(DataSpec(split_seed=1), tmp_path)
    assert set(other.val_ids) != set(data.val_ids)
    assert other.fingerprint == data.fingerprint and len(stores(tmp_path)) == 1
    smaller = open_data(DataSpec(validation=0.1), tmp_path)
    assert len(smaller.val_ids) == 135 == check_data(DataSpec(validation=0.1)).validation_images


def test_prepared_once(folder: Path, tmp_path: Path) -> None:
    calls: list[tuple[int, int]] = []
    first = open_data(spec_of(folder), tmp_path, lambda done, total: calls.append((done, total)))
    assert calls[-1] == (60, 60) and [done for done, _ in calls] == sorted(done for done, _ in calls)
    calls.clear()
    again = open_data(spec_of(folder), tmp_path, lambda done, total: calls.append((done, total)))
    assert not calls and again.fingerprint == first.fingerprint
    assert [path.name for path in stores(tmp_path)] == [store_folder(spec_of(folder), tmp_path).name]


def test_take(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one = open_data(spec_of(folder), tmp_path / "one").train
    monkeypatch.setattr(trainables.data.store_writer, "CHUNK_BYTES", 7 * 3 * SIZE * SIZE)
    many = open_data(spec_of(folder), tmp_path / "many").train
    assert many._table is None and many.fingerprint == one.fingerprint  # 9 record batches
    ids = np.array([59, 0, 7, 7, 6, 13])
    for images in (one, many, pickle.loads(pickle.dumps(many))):
        taken = images.take(ids)
        assert taken.dtype == torch.uint8 and taken.shape == (6, 3, SIZE, SIZE)
        paths = sorted(folder.rglob("*.png"))
        for row, i in enumerate(ids):
            np.testing.assert_array_equal(taken[row].numpy(), decode(paths[i], SIZE))
            assert images.labels[i] == int(paths[i].parent.name[-1])
        assert torch.equal(images.take(torch.from_numpy(ids)), taken)
        assert images.take(np.zeros(0, np.int64)).shape == (0, 3, SIZE, SIZE)
        for wrong in (-1, 60):
            with pytest.raises(IndexError):
                images.take(np.array([wrong]))


def test_key_follows_source_size_and_files(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = store_folder(spec_of(folder), tmp_path)
    assert store_folder(spec_of(folder, image_size=SIZE - 4, margin=4), tmp_path) == key
    assert store_folder(spec_of(folder, validation=0.5, split_seed=3, max_undecodable=0.5), tmp_path) == key
    seen = {key, store_folder(spec_of(folder, margin=2), tmp_path), store_folder(DataSpec(), tmp_path)}
    (folder / "notes.txt").write_text("no image")
    assert store_folder(spec_of(folder), tmp_path) == key
    image = folder / "class0" / "000.png"
    os.utime(image, ns=(0, image.stat().st_mtime_ns + 1))
    seen.add(store_folder(spec_of(folder), tmp_path))
    write_image(folder / "class0" / "more.png", 0)
    seen.add(store_folder(spec_of(folder), tmp_path))
    (folder / "class0" / "more.png").rename(folder / "class1" / "more.png")
    seen.add(store_folder(spec_of(folder), tmp_path))
    seen.add(store_folder(spec_of(folder, splits={"train": "class*"}), tmp_path))
    # What older versions decoded from the same files in another way is not taken for what these would give.
    digits = store_folder(DataSpec(), tmp_path)
    monkeypatch.setattr("trainables.data.data_sets._READING", 1)
    seen.add(store_folder(spec_of(folder), tmp_path))
    assert len(seen) == 8 and store_folder(DataSpec(), tmp_path) == digits


def damage(store: Path, how: str) -> None:
    file = store / "train.arrow"
    content = file.read_bytes()
    match how:
        case "half":
            file.write_bytes(content[: len(content) // 2])
        case "short":
            file.write_bytes(content[:-1])
        case "empty":
            file.write_bytes(b"")
        case "flipped":
            middle = len(content) // 2
            file.write_bytes(content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :])
        case "gone":
            file.unlink()
        case "json":
            (store / "store.json").write_text('{"format": 1, "parts"')
        case "another number":
            text = (store / "store.json").read_text()
            (store / "store.json").write_text(text.replace('"classes": 2', '"classes": 3'))
        case "another format":
            text = (store / "store.json").read_text()
            (store / "store.json").write_text(text.replace('"format": 2', '"format": 1'))
        case "empty json":
            (store / "store.json").write_text("")
        case "no json":
            (store / "store.json").unlink()


JSON = ["json", "no json", "empty json", "another number", "another format"]


@pytest.mark.parametrize("how", ["half", "short", "empty", "flipped", "gone", *JSON])
def test_damage_is_recognised_and_mended(folder: Path, tmp_path: Path, how: str) -> None:
    before = open_data(spec_of(folder), tmp_path)
    pixels = before.train.take(np.arange(60))
    damage(store_folder(spec_of(folder), tmp_path), how)
    calls: list[int] = []
    after = open_data(spec_of(folder), tmp_path, lambda done, total: calls.append(done))
    assert calls[-1] == 60 and after.fingerprint == before.fingerprint
    assert torch.equal(after.train.take(np.arange(60)), pixels)
    assert len(stores(tmp_path)) == 1


def test_a_large_store_is_checked_image_by_image_and_mended(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trainables.data.store, "CHECKED_BYTES", 0)
    before = open_data(spec_of(folder), tmp_path)
    pixels = before.train.take(np.arange(60))
    store = store_folder(spec_of(folder), tmp_path)
    content = (store / "train.arrow").read_bytes()
    where = content.index(pixels[17].numpy().tobytes()) + 100
    (store / "train.arrow").write_bytes(content[:where] + bytes([content[where] ^ 8]) + content[where + 1 :])
    damaged = open_data(spec_of(folder), tmp_path).train
    others = np.setdiff1d(np.arange(60), [17])
    assert torch.equal(damaged.take(others), pixels[others])
    for images in (damaged, pickle.loads(pickle.dumps(damaged))):
        with pytest.raises(StoreDamaged, match=r"image 17 of .* is not what was written"):
            images.take(np.array([3, 17]))
    after = open_data(spec_of(folder), tmp_path)
    assert after.fingerprint == before.fingerprint and torch.equal(after.train.take(np.arange(60)), pixels)
    with pytest.raises(StoreDamaged):  # who still has the old one leaves the new one alone
        damaged.take(np.array([17]))
    calls: list[int] = []
    open_data(spec_of(folder), tmp_path, lambda done, total: calls.append(done))
    assert not calls

    labels = after.train.labels.tobytes()
    content = (store / "train.arrow").read_bytes()
    where = content.index(labels) + 8
    (store / "train.arrow").write_bytes(content[:where] + bytes([content[where] ^ 1]) + content[where + 1 :])
    assert (open_data(spec_of(folder), tmp_path).train.labels == after.train.labels).all()


def test_undecodable(folder: Path, tmp_path: Path) -> None:
    whole = (folder / "class0" / "000.png").read_bytes()
    for i in range(11):
        (folder / "class1" / f"bad{i:02}.png").write_bytes(whole[: 60 + 40 * i])
    with pytest.raises(UserError, match=r"data.max_undecodable: 11 of 71 images .*bad00.png .*and 1 more"):
        open_data(spec_of(folder), tmp_path)
    assert not stores(tmp_path)
    for i in range(40):
        write_image(folder / "class2" / f"{i:02}.png", i)
    with pytest.raises(UserError, match=r"11 of the first 96 images"):  # does not go on in vain
        open_data(spec_of(folder), tmp_path)
    shutil.rmtree(folder / "class2")

    data = open_data(spec_of(folder, max_undecodable=0.2), tmp_path)
    assert len(data.train) == 60 and "11 of 71 images" in data.left_out
    # The names of the first ten, in order, each with its reason.
    assert [f"bad{i:02}.png (" in data.left_out for i in range(11)] == [True] * 10 + [False]
    # A store that was made under a wider limit is refused under a narrow one.
    with pytest.raises(UserError, match="11 of 71 images"):
        open_data(spec_of(folder), tmp_path)


def test_nothing_decodable(tmp_path: Path) -> None:
    (tmp_path / "raw").mkdir()
    (tmp_path / "raw" / "a.png").write_bytes(b"no image")
    with pytest.raises(UserError, match="1 of 1 images cannot be decoded"):
        open_data(spec_of(tmp_path / "raw", max_undecodable=0.99), tmp_path)


OPEN = """
import errno, fcntl, os, signal, sys, time
from pathlib import Path
from trainables.data.data_sets import open_data
from trainables.spec.trial import DataSpec

folder, cache, start, how = sys.argv[1:]

def no_locks(*_):
    raise OSError(errno.ENOLCK, "no locks")

def die(done, total):
    if done >= 32:
        os.kill(os.getpid(), signal.SIGKILL)

if how == "without locks":
    fcntl.flock = no_locks
Path(start + str(os.getpid())).touch()
while how != "killed" and not Path(start).exists():
    time.sleep(0.002)
calls = []
progress = die if how == "killed" else lambda done, total: (calls.append(done), time.sleep(0.05))
data = open_data(DataSpec(name="folder", path=folder, image_size=12), Path(cache), progress)
print(data.fingerprint, len(data.train), bool(calls))
"""


def opener(folder: Path, cache: Path, start: Path, how: str) -> "subprocess.Popen[str]":
    command = [sys.executable, "-c", OPEN, str(folder), str(cache), str(start), how]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"}
    )


@pytest.mark.parametrize("how", ["with locks", pytest.param("without locks", marks=pytest.mark.slow)])
def test_two_processes_at_once(folder: Path, tmp_path: Path, how: str) -> None:
    start = tmp_path / "start"
    both = [opener(folder, tmp_path / "cache", start, how) for _ in range(2)]
    while len(list(tmp_path.glob("start*"))) < 2 and all(p.poll() is None for p in both):
        threading.Event().wait(0.01)
    start.touch()
    said = [process.communicate(timeout=120)[0].split() for process in both]
    assert [process.returncode for process in both] == [0, 0]
    here = open_data(spec_of(folder), tmp_path / "cache")
    assert [words[:2] for words in said] == [[here.fingerprint, "60"]] * 2
    # With locks one decodes and the other waits for it; without, both decode and one rename wins.
    decoded = sorted(words[2] for words in said)
    assert decoded == (["False", "True"] if how == "with locks" else ["True", "True"])
    assert len(stores(tmp_path / "cache")) == 1


def test_killed_while_preparing(folder: Path, tmp_path: Path) -> None:
    process = opener(folder, tmp_path, tmp_path / "start", "killed")
    process.communicate(timeout=120)
    assert process.returncode == -signal.SIGKILL
    (left,) = stores(tmp_path)
    assert ".tmp-" in left.name
    assert len(open_data(spec_of(folder), tmp_path).train) == 60
    assert stores(tmp_path) == [store_folder(spec_of(folder), tmp_path)]


def test_threads_share_a_data_set(folder: Path, tmp_path: Path) -> None:
    with ThreadPoolExecutor(4) as pool:
        opened = list(pool.map(lambda _: open_data(spec_of(folder), tmp_path).fingerprint, range(4)))
    assert len(set(opened)) == 1 and len(stores(tmp_path)) == 1


PEAKS = """
import sys, tracemalloc
import numpy as np
from pathlib import Path
from PIL import Image
from trainables.data import store_writer
from trainables.data.sources.base import Part, Sample
from trainables.data.store_kinds import Squares

store_writer.CHUNK_BYTES = 1 << 18
picture = Image.fromarray(np.zeros((40, 40, 3), np.uint8))
file = Path(sys.argv[1])

def peak(count):
    samples = lambda: (Sample(str(i), i % 7, picture) for i in range(count))
    tracemalloc.start()
    bad = store_writer.Undecodable(0, count, [])
    file.with_name("x.arrow.journal").unlink(missing_ok=True)
    images, *_ = store_writer.write_part(file, Part(count, samples), Squares(32), bad, lambda _: None)
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert images == count and file.stat().st_size > count * 3 * 32 * 32
    return most

peak(500)
print(peak(500), peak(4000))
"""


def test_memory_while_preparing_is_flat(tmp_path: Path) -> None:
    # In a process of its own: what else a test session's threads allocate would count too.
    done = subprocess.run(
        [sys.executable, "-c", PEAKS, str(tmp_path / "x.arrow")], capture_output=True, text=True, check=True
    )
    few, many = map(int, done.stdout.split())
    assert many < few + (1 << 20) < 4000 * 3 * 32 * 32 / 3


def test_no_room(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda _: shutil._ntuple_diskusage(10**9, 10**9, 1000))
    with pytest.raises(UserError, match="no room for the decoded images"):
        open_data(spec_of(folder), tmp_path)
    assert not stores(tmp_path)


def test_cache_that_is_no_folder(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"decoded images cannot be written.*RAYKD_CACHE"):
        open_data(spec_of(folder), tmp_path / "file")


def test_too_few_labels(tmp_path: Path) -> None:
    raw = tmp_path / "raw"
    write_image(raw / "train" / "a" / "1.png", 0)
    write_image(raw / "train" / "b" / "1.png", 1)
    assert len(open_data(spec_of(raw), tmp_path).val_ids) == 1


def test_cache_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("RAYKD_CACHE", str(tmp_path))
    assert cache_folder() == tmp_path
    monkeypatch.delenv("RAYKD_CACHE")
    assert cache_folder() == Path("~/.cache/raykd").expanduser()


@pytest.mark.parametrize(("width", "height", "side"), [(48, 32, 16), (32, 48, 16), (8, 8, 16), (64, 32, 20)])
def test_decode_is_resize_and_centre_crop(width: int, height: int, side: int) -> None:
    # Sizes for which the crop of the resized image falls on whole pixels.
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8))
    want = np.asarray(tv.center_crop(tv.resize(image, [side], antialias=True), [side, side]))
    assert np.abs(decode(image, side).astype(int) - want.transpose(2, 0, 1)).max() <= 1


@pytest.mark.parametrize("size", [(41, 30), (30, 41), (37, 16)])
def test_decode_takes_the_centre(size: tuple[int, int]) -> None:
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (*size[::-1], 3), dtype=np.uint8))
    got = decode(image, 16).astype(int)
    for turn, axis in [(Image.Transpose.FLIP_LEFT_RIGHT, 2), (Image.Transpose.FLIP_TOP_BOTTOM, 1)]:
        assert np.abs(np.flip(got, axis) - decode(image.transpose(turn), 16)).max() <= 1


def test_decode_modes(tmp_path: Path) -> None:
    rgb = np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    grey = rgb[:, :, 0]
    deep = Image.fromarray(grey.astype(np.uint16) * 256 + 17)
    for image, want in [
        (Image.fromarray(rgb), rgb),
        (Image.fromarray(grey), np.stack([grey] * 3, 2)),
        (deep, np.stack([grey] * 3, 2)),
        (Image.fromarray(np.dstack([rgb, grey])), rgb),
    ]:
        image.save(tmp_path / "x.png")
        np.testing.assert_array_equal(decode(tmp_path / "x.png", 8), want.transpose(2, 0, 1))
        np.testing.assert_array_equal(decode((tmp_path / "x.png").read_bytes(), 8), want.transpose(2, 0, 1))
    Image.fromarray(rgb).convert("P").save(tmp_path / "p.gif")
    assert decode(tmp_path / "p.gif", 8).shape == (3, 8, 8)
    Image.fromarray(np.zeros((8, 8, 4), np.uint8), "CMYK").save(tmp_path / "c.jpg")
    assert decode(tmp_path / "c.jpg", 8).min() > 250  # no ink is white
