"""One process at a time: a lock on a file, which the kernel releases however its holder dies.

Not `filelock`: it opens the file through links that another user may have made on the way, and where a file
system has no locks it falls back on a marker file, which a killed process leaves behind for ever.
"""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from trainables.core.files import open_file


class FileLock:
    """An exclusive lock on the file `path`, which is made if it is not there, and stays.

    with FileLock(path) as lock:
        while not lock.try_take(): ...
    """

    def __init__(self, path: Path) -> None:
        """Open the file; the lock is not taken yet. Raises as `open_file`."""
        self._path = path
        self._handle = open_file(path, os.O_RDWR | os.O_CREAT)

    def try_take(self) -> bool:
        """Whether this process has the lock now. `OSError` where the file system has no locks."""
        try:
            fcntl.flock(self._handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def is_in_place(self) -> bool:
        """Whether the file still has its name. Others may have removed it, and made another."""
        try:
            return os.path.samestat(os.fstat(self._handle), self._path.lstat())
        except OSError:
            return False

    def close(self) -> None:
        """Release the lock. Safe to call twice."""
        if self._handle >= 0:
            os.close(self._handle)
        self._handle = -1

    def __enter__(self) -> FileLock:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
