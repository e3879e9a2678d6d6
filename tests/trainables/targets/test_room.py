"""Several processes in one folder of teachers' answers: its bound holds, and none ends another's trial."""

from __future__ import annotations

import os
import shutil
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from trainables.core.file_lock import FileLock
from trainables.targets import shard as shard_module
from trainables.targets import store as store_module
from trainables.targets.room import files
from trainables.targets.series import Series
from trainables.targets.store import Place, TargetStore

IDS = np.arange(100)
SIZE = 100 * (4 * 8 + 8)  # bytes of a shard without its head
ROOM = 10**9


def place(name: str = "a", epoch: int = 1, shard: int = 0) -> Place:
    return Place(Series({"name": name}, 8), epoch, shard)


def put(store: TargetStore, where: Place) -> None:
    store.put(where, IDS, torch.ones(100, 8))


def used(folder: Path) -> int:
    return sum(held.bytes for held in files(folder))


def test_an_answer_whose_folder_is_removed_while_it_is_written_is_not_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = TargetStore(tmp_path / "targets", ROOM)
    put(store, place())
    new_file = shard_module.pa.ipc.new_file

    def cleaned(*arguments: Any, **named: Any) -> Any:
        shutil.rmtree(tmp_path / "targets" / place().series.key)
        return new_file(*arguments, **named)

    with monkeypatch.context() as patch:
        patch.setattr(shard_module.pa.ipc, "new_file", cleaned)
        put(store, place(shard=1))
    assert not store.broken and not store.has(place(shard=1))
    put(store, place(shard=2))
    assert store.has(place(shard=2))


def test_a_lock_whose_folder_is_removed_while_it_is_made_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, own_folder, made = TargetStore(tmp_path, ROOM), store_module.own_folder, []

    def cleaned(folder: Path) -> Path:
        own_folder(folder)
        if not made:
            folder.rmdir()
        made.append(folder)
        return folder

    monkeypatch.setattr(store_module, "own_folder", cleaned)
    lock = store.lock(place())
    assert lock is not None and not store.broken and len(made) == 2
    store.release(place(), lock)


def test_locks_and_what_is_being_written_do_not_make_room(tmp_path: Path) -> None:
    late = TargetStore(tmp_path, ROOM)
    lock = late.lock(place(epoch=9))
    put(late, place(epoch=9))
    assert lock is not None
    folder = late.path(place(epoch=9)).parent
    for name, age in (("young", 0), ("old", 7200)):
        (folder / f".{name}.tmp").write_bytes(bytes(SIZE))
        os.utime(folder / f".{name}.tmp", (time.time() - age,) * 2)
    early = TargetStore(tmp_path, SIZE * 5 // 2)
    put(early, place("b"))
    assert early.has(place("b")) and not early.has(place(epoch=9))
    assert {path.name for path in folder.iterdir()} == {"00000.lock", ".young.tmp"}
    assert early.lock(place(epoch=9)) is None
    late.release(place(epoch=9), lock)


def test_a_folder_where_another_process_has_just_begun_is_not_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, entries = TargetStore(tmp_path, ROOM), store_module.entries
    put(store, place(epoch=9))
    path = store.path(place(epoch=9))
    path.unlink()
    begun = path.parent.with_name("00001") / path.name

    def listed(folder: Any) -> Any:
        found = entries(folder)
        begun.parent.mkdir()
        begun.touch()
        return found

    monkeypatch.setattr(store_module, "entries", listed)
    store_module._tidy(path.parent)
    assert begun.exists() and not path.parent.exists()


def test_the_bound_holds_for_processes_that_write_at_once(tmp_path: Path) -> None:
    room = 4 * SIZE
    stores = [TargetStore(tmp_path, room) for _ in range(6)]
    assert all(store.admits(1, SIZE) for store in stores)  # each has counted, and found nothing

    def write(number: int) -> None:
        for shard in range(3):
            put(stores[number], place(str(number), 1, shard))

    threads = [threading.Thread(target=write, args=(number,)) for number in range(len(stores))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert SIZE < used(tmp_path) <= room


def test_the_bound_holds_where_files_cannot_be_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for shard in range(3):
        put(TargetStore(tmp_path, ROOM), place("old", 1, shard))
    old = tmp_path / place("old").series.key
    os.utime(old, (time.time() - 7200,) * 2)
    unlink = Path.unlink

    def refused(self: Path, missing_ok: bool = False) -> None:
        if self.is_relative_to(old):
            raise PermissionError(13, "another user's", str(self))
        unlink(self, missing_ok)

    monkeypatch.setattr(Path, "unlink", refused)
    store = TargetStore(tmp_path, 4 * SIZE)
    for shard in range(5):
        put(store, place("new", 1, shard))
    assert used(tmp_path) <= 4 * SIZE and not store.broken


def test_a_process_that_writes_for_too_long_is_not_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store_module, "_LONGEST_TURN_S", 0.1)
    store = TargetStore(tmp_path, ROOM)
    with store._turn() as mine:
        assert mine
        put(TargetStore(tmp_path, ROOM), place())
    assert not store.has(place())
    put(store, place())
    assert store.has(place())


@pytest.mark.parametrize("gone", [True, False])
def test_a_disk_that_cannot_be_measured_ends_no_trial(
    gone: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(_: Path) -> Any:
        raise FileNotFoundError(2, "no such folder") if gone else OSError(116, "stale file handle")

    store = TargetStore(tmp_path, "auto")
    with monkeypatch.context() as patch:
        patch.setattr(store_module.shutil, "disk_usage", fails)
        assert not store.admits(1, 1)
        put(store, place())
    assert store.broken == (not gone)  # a folder that is gone can be made again
    assert store.admits(1, 1) == gone


def test_a_path_that_cannot_be_looked_at_ends_no_trial(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: Any, **__: Any) -> bool:
        raise PermissionError(13, "not yours")

    monkeypatch.setattr(Path, "exists", fails)
    store = TargetStore(tmp_path, "auto")
    assert not store.has(place()) and not store.admits(1, 1)


def test_a_lock_whose_file_was_removed_before_it_was_taken_is_taken_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The holder removes the file after another process has opened it."""
    one, two, three = (TargetStore(tmp_path, ROOM) for _ in range(3))
    first = one.lock(place())
    assert first is not None
    take, seen = FileLock.try_take, []

    def after_release(self: FileLock) -> bool:
        if not seen:
            seen.append(self)
            one.release(place(), first)
        return take(self)

    monkeypatch.setattr(FileLock, "try_take", after_release)
    second = two.lock(place())
    assert second is not None and three.lock(place()) is None
    # `raykd clean` removes the file, and another process has a lock of its own: it stays.
    shutil.rmtree(tmp_path / place().series.key)
    third = three.lock(place())
    assert third is not None
    two.release(place(), second)
    assert one.lock(place()) is None
    three.release(place(), third)
    assert not list(files(tmp_path))
