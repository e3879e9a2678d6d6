"""Where a ledger's lines go: a file that grows (here), or the objects of a remote storage (`segments.py`)."""

from __future__ import annotations

import contextlib
import errno
import os
from pathlib import Path
from typing import Protocol

from raykd.storage.folders import LEDGER, origin_of
from trainables.core.errors import StorageLost
from trainables.core.files import open_file, read_bytes, remove, replacing, sync_folder
from trainables.core.storage_retry import lost, with_retry

__all__ = ["AppendLog", "FileLog", "append_log_of", "stored", "sync_folder", "write_anew"]


class AppendLog(Protocol):
    """The writing side of a ledger."""

    def append(self, line: bytes) -> None:
        """Add a line, its end included; it is on the storage when this returns. Raises `StorageLost`."""

    def close(self) -> None:
        """Let go of it. Safe to call twice."""


class FileLog:
    """A file of whole lines, each on the disk before the next one is begun."""

    def __init__(self, path: Path, flags: int = 0, whole: int | None = None) -> None:
        """Open `path`, with further `flags` of `os.open`; what is behind `whole` bytes is cut off."""
        self.path = path
        self._descriptor = open_file(path, os.O_RDWR | os.O_APPEND | flags, 0o644)
        self._size = os.fstat(self._descriptor).st_size
        if whole is not None and whole < self._size:
            os.ftruncate(self._descriptor, whole)
            os.fsync(self._descriptor)
            self._size = whole

    def append(self, line: bytes) -> None:
        problem = f"{self.path} cannot be written"
        try:
            with_retry(lambda: self._write(line), problem)
        except OSError as error:  # of a kind that does not pass
            raise StorageLost(lost(problem, error)) from error
        self._size += len(line)

    def close(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
        self._descriptor = -1

    def _write(self, line: bytes) -> None:
        try:
            if self._descriptor < 0:
                self._reopen()
            written = 0
            while written < len(line):
                written += os.write(self._descriptor, line[written:])
            os.fsync(self._descriptor)
        except OSError:
            # After a failed write or fsync nobody knows what is on the disk, and a later record behind a torn
            # one would be damage in the middle: back to the last whole one. A file on a network that was away
            # has to be opened anew, too.
            with contextlib.suppress(OSError):
                os.ftruncate(self._descriptor, self._size)
            with contextlib.suppress(OSError):
                self.close()
            self._descriptor = -1
            raise

    def _reopen(self) -> None:
        self._descriptor = open_file(self.path, os.O_RDWR | os.O_APPEND)
        gone = self._size - os.fstat(self._descriptor).st_size
        if gone > 0:
            raise OSError(errno.ENODATA, f"{gone} bytes that were written are gone")
        os.ftruncate(self._descriptor, self._size)
        os.fsync(self._descriptor)


def stored(folder: Path) -> tuple[bytes | None, int | None]:
    """The lines of a folder's ledger, None where there is none; of a remote one its last driver."""
    origin = origin_of(folder)
    if origin is not None:
        from raykd.storage import segments

        data, driver = segments.read(origin.remote, origin.key(folder))
        return (data if driver else None), driver
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):
        return read_bytes(folder / LEDGER), None
    return None, None


def append_log_of(folder: Path, last: int | None, count: int, whole: int) -> AppendLog:
    """Where to go on with a folder's ledger, behind its `count` records or first `whole` bytes (0: anew).

    `last` is what `stored` says of its drivers.
    """
    origin = origin_of(folder)
    if origin is not None and last is not None:
        from raykd.storage.segments import Segments

        return Segments(origin.remote, origin.key(folder), last + 1, count)
    path = folder / LEDGER
    if count:
        return FileLog(path, whole=whole)
    remove(path)  # its driver died before anything was recorded
    append_log = FileLog(path, os.O_CREAT | os.O_EXCL)
    # Without these a crash can leave a ledger whose records are on the disk and whose name is not.
    sync_folder(folder)
    sync_folder(folder.parent)
    return append_log


def write_anew(folder: Path, last: int | None, lines: list[bytes]) -> None:
    """Put these lines in the place of a folder's ledger, all of them or none."""
    if last is None:
        with replacing(folder / LEDGER) as path:
            path.write_bytes(b"".join(lines))
        return
    append_log = append_log_of(folder, last, 0, 0)
    for line in lines:
        append_log.append(line)
