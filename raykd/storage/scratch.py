"""Temporary folders of a driver, for Ray's own files, which nothing reads again.

They are not on the storage, which may be full or slow. Only their owner can read them, whatever the umask.
A driver removes its folder when it ends, in good order or not; when it starts, those of killed drivers.
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

from raykd.process import signals
from raykd.storage.lease import LeaseRecord
from raykd.storage.owners import make_private

_PREFIX = "raykd-"
_OWNER = ".driver"
_LAST_WRITES_S = 5.0  # of processes that are just ending
_HURRIED_S = 2.0  # the same, when the driver did not end in good order


@contextmanager
def scratch_folder(above: Path | None = None, prefix: str = _PREFIX) -> Iterator[Path]:
    """A new folder, which is removed at the end. Before, the folders of dead drivers are removed.

    It is made in `above`, by default the system's temporary folder, under a name that begins with `prefix`,
    and holds a file that names its driver.
    """
    above = above or Path(tempfile.gettempdir())
    make_private(above)
    for left in above.glob(f"{prefix}*"):
        if owner := _dead_owner(left):
            _remove(left, owner, 0)
    folder = Path(tempfile.mkdtemp(prefix=prefix, dir=above))  # with mode 0700
    owner = LeaseRecord.mine().data()
    try:
        (folder / _OWNER).write_bytes(owner)
        with signals.cleared(lambda: _remove(folder, owner, _HURRIED_S)):
            yield folder
    finally:
        _remove(folder, owner, _LAST_WRITES_S)


def _remove(folder: Path, owner: bytes, within_s: float) -> None:
    """Remove a folder to which others may still write for `within_s` seconds.

    What is left after them keeps the file that names its driver, so that the next driver removes it.
    """
    deadline = time.monotonic() + within_s
    while True:
        shutil.rmtree(folder, ignore_errors=True)  # it follows no link, neither here nor inside
        if not folder.exists():
            return
        if time.monotonic() >= deadline:
            break
    with suppress(OSError):
        (folder / _OWNER).write_bytes(owner)


def _dead_owner(folder: Path) -> bytes | None:
    """What the file that names its driver holds, if the driver is dead for sure; else None.

    A folder without that file may be anybody's.
    """
    try:
        if not _own(folder, stat.S_ISDIR) or not _own(folder / _OWNER, stat.S_ISREG):
            return None
        owner = (folder / _OWNER).read_bytes()
    except OSError:
        return None
    return owner if LeaseRecord.read(owner).lives is False else None


def _own(path: Path, is_kind: Callable[[int], bool]) -> bool:
    """Whether the file or folder is this user's, and of that kind; a link is not."""
    status = path.lstat()
    return status.st_uid == os.getuid() and is_kind(status.st_mode)
