"""Temporary folders that say whose they are, so that those of killed processes can be removed.

For the files of Ray and of multiprocessing, which nothing reads again. Not on the storage, which may be full
or far. They are their owner's alone, whatever the umask. A process removes its own at its end, and those of
dead ones at its start.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import shutil
import stat
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from raykd.storage.driver import Claim

_PREFIX = "raykd-"
_OWNER = ".driver"
_LAST_WRITES_S = 5.0  # of processes that are just ending


@contextmanager
def own_multiprocessing_folder() -> Iterator[None]:
    """In here this process's `multiprocessing` keeps its sockets in such a folder.

    By itself it makes `pymp-…`, and a process that Ray ends never removes that.
    """
    with scratch_folder() as folder:
        # Its own key: `get_temp_dir` looks there first, and processes that it forks inherit it.
        settings = multiprocessing.current_process()._config  # type: ignore[attr-defined]
        settings["tempdir"] = str(folder)
        try:
            yield
        finally:
            del settings["tempdir"]


@contextmanager
def scratch_folder(above: Path | None = None, prefix: str = _PREFIX) -> Iterator[Path]:
    """A new folder that is gone at the end. First those go that dead processes left.

    It is in `above`, the system's temporary folder by default, under a name that begins with `prefix`.
    """
    above = above or Path(tempfile.gettempdir())
    above.mkdir(parents=True, exist_ok=True)
    remove_left(above, f"{prefix}*")
    folder = Path(tempfile.mkdtemp(prefix=prefix, dir=above))  # with mode 0700
    claim = Claim.mine().data()
    try:
        (folder / _OWNER).write_bytes(claim)
        yield folder
    finally:
        deadline = time.monotonic() + _LAST_WRITES_S
        while folder.exists() and time.monotonic() < deadline:
            shutil.rmtree(folder, ignore_errors=True)
        with contextlib.suppress(OSError):  # what is still there goes with the next driver
            if folder.exists():
                (folder / _OWNER).write_bytes(claim)


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
