"""Temporary folders that say whose they are, so that those of killed processes can be removed.

For Ray's own files, which nothing reads again. Not on the storage, which may be full
or far. A process removes its own at its end, and those of dead ones at its start.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from raykd.storage.driver import Claim

_PREFIX = "raykd-"
_OWNER = ".driver"


@contextmanager
def scratch_folder() -> Iterator[Path]:
    """A new folder that is gone at the end. First those go that dead processes left."""
    remove_left()
    folder = Path(tempfile.mkdtemp(prefix=_PREFIX))
    try:
        claim(folder)
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def claim(folder: Path) -> None:
    """Write down that a folder is this process's."""
    (folder / _OWNER).write_bytes(Claim.mine().data())


def remove_left(where: Path | None = None, pattern: str = f"{_PREFIX}*") -> None:
    """Remove what dead processes left: in the temporary folder, or of that name in another one."""
    with contextlib.suppress(OSError):
        for left in list((where or Path(tempfile.gettempdir())).glob(pattern)):
            if _is_left(left):
                shutil.rmtree(left, ignore_errors=True)  # it follows no link, neither here nor inside


def _is_left(folder: Path) -> bool:
    """Whether it is surely a dead process's: one that does not say so may be anything."""
    try:
        if not _own(folder, stat.S_ISDIR) or not _own(folder / _OWNER, stat.S_ISREG):
            return False
        return Claim.read((folder / _OWNER).read_bytes()).lives is False
    except OSError:
        return False


def _own(path: Path, is_kind: Callable[[int], bool]) -> bool:
    """Whether it is this user's, and itself of that kind and no link to one."""
    status = path.lstat()
    return status.st_uid == os.getuid() and is_kind(status.st_mode)
