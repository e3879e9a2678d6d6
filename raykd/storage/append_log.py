"""What a ledger's lines are appended to: a file (here), or objects of a remote storage (`segments.py`)."""

from __future__ import annotations

import contextlib
import errno
import os
from pathlib import Path
from typing import Protocol

from trainables.core.errors import StorageLost
from trainables.core.files import open_file
from trainables.core.storage_retry import lost, with_retry


class AppendLog(Protocol):
    """The writing side of a ledger, for one driver."""

    def append(self, lines: bytes) -> None:
        """Add whole lines; they are on the storage when this returns. Raises `StorageLost`.

        A crash on the way leaves the first of them at most.
        """

    def close(self) -> None:
        """Release what is open. Safe to call twice."""


class FileLog:
    """A file of whole lines: what one call adds is on the disk before the next call begins."""

    def __init__(self, path: Path, flags: int = 0, size: int | None = None) -> None:
        """Open `path`, with further `flags` of `os.open`; what is behind `size` bytes is cut off."""
        self.path = path
        self._descriptor = open_file(path, os.O_RDWR | os.O_APPEND | flags, 0o644)
        self._size = os.fstat(self._descriptor).st_size
        if size is not None and size < self._size:
            os.ftruncate(self._descriptor, size)
            os.fsync(self._descriptor)
            self._size = size

    def append(self, lines: bytes) -> None:
        """Add whole lines, and wait for the disk; what may pass is tried again. Raises `StorageLost`."""
        problem = f"{self.path} cannot be written"
        try:
            with_retry(lambda: self._write(lines), problem)
        except OSError as error:  # of a kind that does not pass
            raise StorageLost(lost(problem, error)) from error
        self._size += len(lines)

    def close(self) -> None:
        """Close the file. Safe to call twice."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
        self._descriptor = -1

    def _write(self, lines: bytes) -> None:
        try:
            if self._descriptor < 0:
                self._reopen()
            written = 0
            while written < len(lines):
                written += os.write(self._descriptor, lines[written:])
            os.fsync(self._descriptor)
        except OSError:
            # After a failed write or fsync nobody knows what is on the disk. A record behind a torn one would
            # be damage in the middle, so the file is cut back to the last whole one. It is also opened anew,
            # which a network file system needs after it was away.
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
