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
from pathlib import Path
from typing import NamedTuple

import numpy as np
from torch import Tensor

from trainables.core.errors import UserError
from trainables.core.file_lock import FileLock
from trainables.core.files import own_folder, remove, replacing
from trainables.targets.room import ABOUT, Held, Room, entries, files
from trainables.targets.series import Series
from trainables.targets.shard import read_shard, write_shard

_STALE_S = 3600.0  # a series that was not used for so long belongs to no trial that runs
_LOOK_S = 5.0  # between counts of the folder's files
_AUTO = 0.25  # share of what is free
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
        return self.path(place).exists()

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
        with self._alone:
            bound = self.bound()
            more = self._total() + size - bound
            return more <= 0 or (
                size <= bound and sum(held.bytes for held in self._worse_than(epoch)) >= more
            )

    def put(self, place: Place, ids: np.ndarray, rows: Tensor) -> None:
        """Keep the answers `rows` (N, D), on the CPU, if there is room for them."""
        size = rows.numel() * rows.element_size() + ids.nbytes
        if not self.admits(place.epoch, size):
            return
        try:
            with self._alone:
                self._make_room(size, place.epoch)
                self._written += size
            own_folder(self._epoch(place))
            self._describe(place.series)
            write_shard(self.path(place), ids, rows, place.about)
        except (OSError, UserError) as error:
            self._fails(error)

    def lock(self, place: Place) -> FileLock | None:
        """The lock of a place, taken; None if another process has it. `release` it.

        Where the file system has no locks, each process that asks has it: some answers are then computed
        more than once.
        """
        path = self._epoch(place) / f"{place.shard:05}.lock"
        try:
            own_folder(path.parent)
            lock = FileLock(path)
        except (OSError, UserError) as error:
            self._fails(error)
            return None
        try:
            if lock.try_take():
                return lock
        except OSError:
            return lock
        lock.close()
        return None

    def release(self, place: Place, lock: FileLock) -> None:
        """Give a lock back, and remove its file: it is made again where it is needed."""
        with contextlib.suppress(OSError, UserError):
            remove(self._epoch(place) / f"{place.shard:05}.lock")
        lock.close()

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
        return sorted(worse, key=turn)

    def _make_room(self, size: int, epoch: int) -> None:
        more = self._total() + size - self.bound()
        if more <= 0:
            return
        self._counted = -_LOOK_S  # by a fresh count
        more = self._total() + size - self.bound()
        for held in self._worse_than(epoch):
            if more <= 0:
                return
            with contextlib.suppress(OSError):
                held.path.unlink()
                more -= held.bytes
            self._held.remove(held)
            _tidy(held.path.parent)

    def _describe(self, series: Series) -> None:
        path = self.folder / series.key / ABOUT
        if not path.exists():
            with replacing(path, durable=False) as temporary:
                temporary.write_text(json.dumps(series.facts, indent=1, default=str))

    def _fails(self, error: Exception) -> None:
        if not self.broken:
            _log.warning("the teacher's answers are not shared from here on: %s", error)
        self.broken = True


def _tidy(epoch: Path) -> None:
    """Remove the folder of an epoch if it is empty, and that of its series if no other is left."""
    with contextlib.suppress(OSError):
        epoch.rmdir()
        if {entry.name for entry in entries(epoch.parent)} <= {ABOUT}:
            shutil.rmtree(epoch.parent)
