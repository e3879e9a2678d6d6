"""Temporary folders of a driver, for Ray's own files, which nothing reads again.

They are not on the storage, which may be full or slow. Only their owner can read them, whatever the umask. A
driver removes its folder when it ends, and the folders of killed drivers when it starts.
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
    """A new folder, which is removed at the end. Before, the folders of dead drivers are removed.

    It is made in `above`, by default the system's temporary folder, under a name that begins with `prefix`,
    and holds a file that names its driver.
    """
    above = above or Path(tempfile.gettempdir())
    make_private(above)
    for left in above.glob(f"{prefix}*"):
        if _is_abandoned(left):
            shutil.rmtree(left, ignore_errors=True)  # it follows no link, neither here nor inside
    folder = Path(tempfile.mkdtemp(prefix=prefix, dir=above))  # with mode 0700
    owner = LeaseRecord.mine().data()
    try:
        (folder / _OWNER).write_bytes(owner)
        yield folder
    finally:
        deadline = time.monotonic() + _LAST_WRITES_S
        while folder.exists() and time.monotonic() < deadline:
            shutil.rmtree(folder, ignore_errors=True)
        with suppress(OSError):  # the next driver removes what is still there
            if folder.exists():
                (folder / _OWNER).write_bytes(owner)


def _is_abandoned(folder: Path) -> bool:
    """Whether it is a dead driver's for sure: a folder without the file that says so may be anything."""
    try:
        if not _own(folder, stat.S_ISDIR) or not _own(folder / _OWNER, stat.S_ISREG):
            return False
        return LeaseRecord.read((folder / _OWNER).read_bytes()).lives is False
    except OSError:
        return False


def _own(path: Path, is_kind: Callable[[int], bool]) -> bool:
    """Whether the file or folder is this user's, and of that kind; a link is not."""
    status = path.lstat()
    return status.st_uid == os.getuid() and is_kind(status.st_mode)
