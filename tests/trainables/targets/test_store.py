"""The store of teachers' answers: what is read is what was written, and what goes first when it is full."""

from __future__ import annotations

import os
import tempfile
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from small_methods import context as run_context
from small_methods import make_teacher, training_images

from trainables.core.file_lock import FileLock
from trainables.methods.parts.teacher_classifier import TeacherClassifier
from trainables.targets import plain as plain_module
from trainables.targets import shard as shard_module
from trainables.targets import store as store_module
from trainables.targets.plain import PlainTargets
from trainables.targets.room import Room, files
from trainables.targets.series import Series, can_be_shared
from trainables.targets.shard import read_shard, write_shard
from trainables.targets.sharing import shard_length
from trainables.targets.store import Place, TargetStore

DTYPES = (torch.float32, torch.bfloat16, torch.float16, torch.float64)
ROWS = 100
SIZE = ROWS * (4 * 8 + 8)  # bytes of a shard below


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 40), st.integers(1, 9), st.sampled_from(DTYPES), st.integers(0, 2**31))
def test_a_shard_is_read_to_the_last_bit(rows: int, width: int, dtype: torch.dtype, seed: int) -> None:
    drawn = np.random.default_rng(seed)
    # Any bits, NaN and infinity too.
    raw = torch.from_numpy(drawn.integers(0, 256, (rows, width * dtype.itemsize), dtype=np.uint8))
    ids = drawn.integers(0, 2**40, rows)
    about = {"series": "abc", "part": "1/2/0"}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a" / "shard.arrow"
        write_shard(path, ids, raw.view(dtype), about)
        found = read_shard(path, ids, about)
        assert found is not None and found.dtype == dtype
        assert torch.equal(found.view(torch.uint8), raw)
        assert read_shard(path, ids + 1, about) is None
        assert read_shard(path, ids, {**about, "part": "1/3/0"}) is None
        assert read_shard(path.with_name("none"), ids, about) is None


def test_no_flipped_bit_and_no_missing_end_ends_a_trial(tmp_path: Path) -> None:
    """Arrow raises errors of many kinds for a damaged footer, which is at the end of the file."""
    ids, rows, about = np.arange(3), torch.randn(3, 4), {"series": "ab", "part": "1/0/0"}
    path = tmp_path / "shard.arrow"
    write_shard(path, ids, rows, about)
    whole = path.read_bytes()
    footer = range(8 * (len(whole) - 150), 8 * len(whole))
    others = np.random.default_rng(0).integers(0, footer.start, 300).tolist()
    damaged = [whole[:length] for length in range(0, len(whole), 10)]
    for bit in (*footer, *others):
        flipped = bytearray(whole)
        flipped[bit // 8] ^= 1 << bit % 8
        damaged.append(bytes(flipped))
    for content in damaged:
        path.write_bytes(content)
        shard_module._whole.clear()  # the files that this process has checked
        found = read_shard(path, ids, about)
        assert found is None or torch.equal(found, rows)  # a bit that nobody reads was flipped


@given(st.integers(1, 10_000), st.integers(1, 4096))
def test_a_shard_has_a_size_between_the_bounds(passes: int, images: int) -> None:
    length = shard_length(passes, images)
    assert length >= 1
    assert length * images <= max(8192, images)
    assert (length + 1) * images > 512 or length >= 512 // images


def store(folder: Path, room: Room) -> TargetStore:
    """A store that counts its files before each answer."""
    found = TargetStore(folder, room)
    found._counted = -1e9
    return found


def put(folder: Path, room: Room, name: str, epoch: int, shard: int = 0) -> None:
    place = Place(Series({"name": name, "arch": "net", "what": "embed"}, 8), epoch, shard)
    store(folder, room).put(place, np.arange(ROWS), torch.full((ROWS, 8), float(epoch)))


def held(folder: Path) -> set[tuple[str, int]]:
    """(key, epoch) of what is kept."""
    return {(file.series, file.epoch) for file in files(folder) if file.path.suffix == ".arrow"}


def key(name: str) -> str:
    return Series({"name": name, "arch": "net", "what": "embed"}, 8).key


def test_late_epochs_go_before_early_ones(tmp_path: Path) -> None:
    room = 3 * 2 * SIZE  # files have some bytes more than their content
    for epoch in (1, 2, 3, 4, 5, 6):
        put(tmp_path, 10**9, "a", epoch)
    put(tmp_path, room, "b", 1)
    kept = sorted(epoch for series, epoch in held(tmp_path) if series == key("a"))
    assert (key("b"), 1) in held(tmp_path)
    assert kept and kept == list(range(1, len(kept) + 1)) and len(kept) < 6
    # What would be the first to go is not written, and nothing else goes for it.
    before = held(tmp_path)
    for epoch in (6, 7):
        put(tmp_path, room, "c", epoch)
    assert held(tmp_path) == before
    assert not store(tmp_path, room).admits(7, 10 * SIZE)


def test_a_series_that_was_not_used_for_long_goes_first(tmp_path: Path) -> None:
    for name, epochs in (("old", (1, 2)), ("older", (1,)), ("new", (1, 9))):
        for epoch in epochs:
            put(tmp_path, 10**9, name, epoch)
    hours = {"old": 2, "older": 3, "new": 0.5}
    for name, ago in hours.items():
        then = time.time() - 3600 * ago
        os.utime(tmp_path / key(name), (then, then))
    total = sum(file.bytes for file in files(tmp_path))
    put(tmp_path, total, "next", 20)  # in the place of one
    assert held(tmp_path) == {
        (key("old"), 1), (key("old"), 2), (key("new"), 1), (key("new"), 9), (key("next"), 20)
    }  # fmt: skip
    assert not (tmp_path / key("older")).exists()
    put(tmp_path, total, "next", 21)
    assert (key("old"), 2) not in held(tmp_path) and (key("old"), 1) in held(tmp_path)


def test_a_part_of_the_disk_stays_free(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(tmp_path, 10**9, "a", 1)
    used = sum(file.bytes for file in files(tmp_path))

    def disk(free: int) -> None:
        usage = type("Usage", (), {"total": 1000 * SIZE, "used": 0, "free": free})
        monkeypatch.setattr(store_module.shutil, "disk_usage", lambda _: usage)

    disk(500 * SIZE)
    assert store(tmp_path, "auto").bound() == int(0.25 * (used + 500 * SIZE))
    assert store(tmp_path, 10**12).bound() == used + 450 * SIZE  # a twentieth of the disk is left
    disk(20 * SIZE)
    assert store(tmp_path, 10**12).bound() == used  # nothing more
    assert store(tmp_path, "off").bound() == 0 and not store(tmp_path, "off").admits(1, 1)


def test_a_file_that_is_removed_while_it_is_read_stays_readable(tmp_path: Path) -> None:
    put(tmp_path, 10**9, "a", 1)
    place = Place(Series({"name": "a", "arch": "net", "what": "embed"}, 8), 1, 0)
    found = store(tmp_path, "auto").get(place, np.arange(ROWS))
    store(tmp_path, "auto").path(place).unlink()
    assert found is not None and torch.equal(found, torch.ones(ROWS, 8))


def test_a_lock_is_taken_once_and_leaves_no_file(tmp_path: Path) -> None:
    place = Place(Series({"name": "a"}, 8), 1, 0)
    one, two = TargetStore(tmp_path, "auto"), TargetStore(tmp_path, "auto")
    lock = one.lock(place)
    assert isinstance(lock, FileLock) and two.lock(place) is None
    one.release(place, lock)
    again = two.lock(place)
    assert again is not None
    two.release(place, again)
    assert not list(files(tmp_path))


def test_plain_answers_are_encoded_once_for_a_classifier_and_for_all_processes(tmp_path: Path) -> None:
    teacher = make_teacher(classes=0)
    images = training_images(run_context())
    asked: list[int] = []
    teacher.backbone.register_forward_hook(lambda *_: asked.append(1))

    def fitted(room: Room | None) -> torch.Tensor:
        if room is not None:
            images._encoder = PlainTargets(TargetStore(tmp_path, room))
        classifier = TeacherClassifier(teacher, images.classes, "fitted")
        classifier.begin(teacher, images)
        return classifier.weight.clone()

    alone, passes = fitted(None), len(asked)
    assert passes and not can_be_shared(teacher)  # it comes from no file
    images._images.fingerprint, images._images.size = "noise", 48  # type: ignore[misc]
    teacher.sha256 = "of a file"
    from trainables.methods.parts import teacher_classifier

    asked.clear()
    for _ in range(3):
        teacher_classifier._known.clear()  # what this process remembers
        assert torch.equal(fitted("auto"), alone)
    assert len(asked) == passes
    asked.clear()
    assert torch.equal(
        images.encode(lambda x: x.flatten(1), images.ids[:3]), images.plain(images.ids[:3]).flatten(1)
    )
    assert not asked  # another encoder is called as it is


def test_plain_answers_are_given_on_the_device_that_is_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    teacher = make_teacher(classes=0)
    series = Series({"name": "a"}, teacher.feature_dim)
    monkeypatch.setattr(plain_module, "plain", lambda *_: series)
    monkeypatch.setattr(plain_module, "can_be_shared", lambda _: True)
    monkeypatch.setattr(plain_module, "encode_images", lambda *_: torch.ones(ROWS, teacher.feature_dim))
    encode = PlainTargets(TargetStore(tmp_path, "auto"))
    images = training_images(run_context())._images
    for _ in ("computed", "read"):
        found = encode(teacher.features, images, np.arange(ROWS), 48, torch.device("meta"))
        assert found.device.type == "meta"
