"""A driver's temporary folders, for Ray's own files, which nothing reads again.

Not on the storage, which may be full or far. They are their owner's alone, whatever the umask. A driver
removes its own at its end, and those of drivers that were killed at its start.
"""

from __future__ import annotations

import os
import shutil
import stat
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from raykd.storage.lease import LeaseRecord
from raykd.storage.owners import make_private

_PREFIX = "raykd-"
_OWNER = ".driver"
_LAST_WRITES_S = 5.0  # of processes that are just ending


@contextmanager
def scratch_folder(above: Path | None = None, prefix: str = _PREFIX) -> Iterator[Path]:
    """A new folder that says whose it is, gone at the end. First those go that dead drivers left.

    It is in `above`, the system's temporary folder by default, under a name that begins with `prefix`.
    """
    above = above or Path(tempfile.gettempdir())
    make_private(above)
    for left in above.glob(f"{prefix}*"):
        if _is_left(left):
            shutil.rmtree(left, ignore_errors=True)  # it follows no link, neither here nor inside
    folder = Path(tempfile.mkdtemp(prefix=prefix, dir=above))  # with mode 0700
    claim = LeaseRecord.mine().data()
    try:
        (folder / _OWNER).write_bytes(claim)
        yield folder
    finally:
        deadline = time.monotonic() + _LAST_WRITES_S
        while folder.exists() and time.monotonic() < deadline:
            shutil.rmtree(folder, ignore_errors=True)
        with suppress(OSError):  # what is still there goes with the next driver
            if folder.exists():
                (folder / _OWNER).write_bytes(claim)


def _is_left(folder: Path) -> bool:
    """Whether it is surely a dead driver's: one that does not say so may be anything."""
    try:
        if not _own(folder, stat.S_ISDIR) or not _own(folder / _OWNER, stat.S_ISREG):
            return False
        return LeaseRecord.read((folder / _OWNER).read_bytes()).lives is False
    except OSError:
        return False


def _own(path: Path, is_kind: Callable[[int], bool]) -> bool:
    """Whether it is this user's, and itself of that kind and no link to one."""
    status = path.lstat()
    return status.st_uid == os.getuid() and is_kind(status.st_mode)
