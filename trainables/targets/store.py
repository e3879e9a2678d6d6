"""The folder of a node that holds teachers' answers, and its bound in bytes.

    store = TargetStore(cache / "targets", "auto")
    if store.admits(epoch, size): store.put(place, ids, rows)
    rows = store.get(place, ids)

When the folder is full, series that nobody used for an hour go first, the longest unused one before the
others; then late epochs before early ones, because early epochs are shared by all trials and late ones only
by those that were not stopped. What would be the first to go is not written.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import shutil
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from torch import Tensor

from trainables.core.errors import UserError
from trainables.core.file_lock import FileLock
from trainables.core.files import own_folder, remove, replacing
from trainables.targets.room import ABOUT, WRITING, Held, Room, entries, files
from trainables.targets.series import Series
from trainables.targets.shard import read_shard, write_shard

_STALE_S = 3600.0  # a series that was not used for so long belongs to no trial that runs
_LOOK_S = 5.0  # between counts of the folder's files
_AUTO = 0.25  # share of what is free
_POLL_S = 0.02  # between looks at a lock
_LONGEST_TURN_S = 10.0  # the longest wait for another process that writes
_TRIES = 10  # to take a lock whose file others remove
_LEFT = (0.05, 10 << 30)  # of the disk: this share, or so many bytes if that is less, stay free
_log = logging.getLogger(__name__)


class Place(NamedTuple):
    """Where the answers to a run of micro-batches are."""

    series: Series
    epoch: int  # from 1; 0: answers to images without augmentation
    shard: int
    rank: int = 0

    @property
    def about(self) -> dict[str, str]:
        """What the file says of itself."""
        return {"series": self.series.key, "part": f"{self.epoch}/{self.shard}/{self.rank}"}


class TargetStore:
    """See the head of this file. Several processes use one folder at once.

    No function raises what the disk raises: answers that cannot be kept are computed again. The first problem
    is logged, and from then on nothing is written. Threads may share a store.
    """

    def __init__(self, folder: Path, room: Room) -> None:
        self.folder, self.room = folder, room
        self.broken = False  # the folder cannot be written
        self._held: list[Held] = []
        self._counted = -_LOOK_S  # when `_held` was last counted
        self._written = 0  # bytes since then
        self._alone = threading.RLock()  # for the count

    def path(self, place: Place) -> Path:
        """The file of a place."""
        return self._epoch(place) / f"{place.shard:05}-{place.rank}.arrow"

    def _epoch(self, place: Place) -> Path:
        return self.folder / place.series.key / f"{place.epoch:05}"

    def has(self, place: Place) -> bool:
        """Whether there is a file; it may prove damaged."""
        try:
            return self.path(place).exists()
        except OSError:
            return False

    def get(self, place: Place, ids: np.ndarray) -> Tensor | None:
        """The answers (N, D) to these images; None if they are not there, or not whole."""
        return read_shard(self.path(place), ids, place.about)

    def used(self, series: Series) -> None:
        """Note that a trial uses the series now."""
        with contextlib.suppress(OSError):
            os.utime(self.folder / series.key)

    def admits(self, epoch: int, size: int) -> bool:
        """Whether `size` more bytes of this epoch would be kept."""
        if self.broken or self.room == "off":
            return False
        try:
            with self._alone:
                more = self._total() + size - self.bound()
                return more <= 0 or sum(held.bytes for held in self._worse_than(epoch)) >= more
        except FileNotFoundError:  # another process removed the folder meanwhile
            return False
        except OSError as error:
            self._fails(error)
            return False

    def put(self, place: Place, ids: np.ndarray, rows: Tensor) -> None:
        """Keep the answers `rows` (N, D), on the CPU, if there is room for them.

        They are not kept either if another process removes the folder meanwhile: `raykd clean`, or one that
        makes room.
        """
        size = rows.numel() * rows.element_size() + ids.nbytes
        if not self.admits(place.epoch, size):
            return
        try:
            own_folder(self.folder)
            with self._turn() as mine:
                if not mine or not self._make_room(size, place.epoch):
                    return
                own_folder(self._epoch(place))
                self._describe(place.series)
                write_shard(self.path(place), ids, rows, place.about)
                with self._alone:
                    self._written += size
        except FileNotFoundError:
            return
        except (OSError, UserError) as error:
            self._fails(error)

    @contextlib.contextmanager
    def _turn(self) -> Iterator[bool]:
        """Inside, no other process writes to the folder; False if one writes for too long."""
        try:
            lock = FileLock(self.folder / WRITING)
        except (OSError, UserError):  # another user's, for example; then the room is only nearly kept
            yield True
            return
        with lock:
            until = time.monotonic() + _LONGEST_TURN_S
            taken = _taken(lock)
            while not taken and time.monotonic() < until:
                time.sleep(_POLL_S)
                taken = _taken(lock)
            yield taken

    def lock(self, place: Place) -> FileLock | None:
        """The lock of a place, taken; None if another process has it. `release` it.

        Where the file system has no locks, each process that asks has it: some answers are then computed
        more than once.
        """
        path = self._lock_path(place)
        for _ in range(_TRIES):
            try:
                own_folder(path.parent)
                lock = FileLock(path)
            except FileNotFoundError:  # another process removed the folder meanwhile
                continue
            except (OSError, UserError) as error:
                self._fails(error)
                return None
            if not _taken(lock):
                lock.close()
                return None
            if lock.is_in_place():
                return lock
            lock.close()  # its last holder removed it after it was opened here
        return None

    def release(self, place: Place, lock: FileLock) -> None:
        """Give a lock back, and remove its file: it is made again where it is needed."""
        if lock.is_in_place():  # else the file of this name is the lock of another process
            with contextlib.suppress(OSError, UserError):
                remove(self._lock_path(place))
        lock.close()

    def _lock_path(self, place: Place) -> Path:
        return self._epoch(place) / f"{place.shard:05}.lock"

    def bound(self) -> int:
        """The bytes that the folder may hold now. A part of the disk always stays free."""
        if self.room == "off":
            return 0
        near = next((path for path in (self.folder, *self.folder.parents) if path.exists()), Path("/"))
        disk, held = shutil.disk_usage(near), self._total()
        left = min(int(_LEFT[0] * disk.total), _LEFT[1])
        most = held + max(0, disk.free - left)
        return min(most, int(_AUTO * (held + disk.free)) if self.room == "auto" else self.room)

    def _total(self) -> int:
        if time.monotonic() - self._counted > _LOOK_S:
            self._held, self._written = list(files(self.folder)), 0
            self._counted = time.monotonic()
        return sum(held.bytes for held in self._held) + self._written

    def _worse_than(self, epoch: int) -> list[Held]:
        """The files that go before one of this epoch, which is in use, the first to go first."""
        now = time.time()

        def turn(held: Held) -> tuple[float, ...]:
            if now - held.used > _STALE_S:
                return (0, held.used, -held.epoch)
            return (1, -held.epoch, held.used)

        worse = [held for held in self._held if now - held.used > _STALE_S or held.epoch > epoch]
        return sorted((held for held in worse if not _in_use(held, now)), key=turn)

    def _make_room(self, size: int, epoch: int) -> bool:
        """Whether there is room for `size` more bytes, after what goes before them is removed."""
        with self._alone:
            self._counted = -_LOOK_S  # count now: other processes wrote meanwhile
            if not self.admits(epoch, size):
                return False
            more = self._total() + size - self.bound()
            for held in self._worse_than(epoch):
                if more <= 0:
                    break
                with contextlib.suppress(OSError):  # another user's
                    held.path.unlink(missing_ok=True)
                    more -= held.bytes
                    self._held.remove(held)
                    _tidy(held.path.parent)
            return more <= 0

    def _describe(self, series: Series) -> None:
        path = self.folder / series.key / ABOUT
        if not path.exists():
            with replacing(path, durable=False) as temporary:
                temporary.write_text(json.dumps(series.facts, indent=1, default=str))

    def _fails(self, error: Exception) -> None:
        if not self.broken:
            _log.warning("the teacher's answers are not shared from here on: %s", error)
        self.broken = True


def _taken(lock: FileLock) -> bool:
    """Whether this process has the lock now; it has where the file system has no locks."""
    try:
        return lock.try_take()
    except OSError:
        return True


def _in_use(held: Held, now: float) -> bool:
    """Whether another process may have the file open: a lock, or what it is writing."""
    if held.path.suffix == ".tmp":
        return now - held.changed < _STALE_S  # an older one is of a process that was killed
    return held.path.suffix == ".lock"


def _tidy(epoch: Path) -> None:
    """Remove the folder of an epoch if it is empty, and that of its series if no other is left."""
    with contextlib.suppress(OSError):
        epoch.rmdir()
        if {entry.name for entry in entries(epoch.parent)} <= {ABOUT}:
            (epoch.parent / ABOUT).unlink(missing_ok=True)
            epoch.parent.rmdir()  # not with what it holds: another process may have just begun an epoch
