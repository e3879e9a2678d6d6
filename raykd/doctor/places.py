"""Checks of the folders that a sweep writes: its storage, the user's cache, and the room on their disks."""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from pathlib import Path

from raykd.doctor.check import Check, answered
from raykd.storage.base import Storage
from raykd.storage.open_storage import open_storage
from trainables.core.errors import UserError
from trainables.core.files import cache_folder

GIB = 2**30
_NEED_DISK = 2 * GIB  # a quickstart's checkpoints, decoded images and Ray's logs, with room


def check_cache() -> Check:
    """Can the user's cache be written?"""
    name = "cache"
    try:
        folder = cache_folder().absolute()
        with tempfile.TemporaryDirectory(prefix=".raykd-doctor-", dir=_existing(folder)):
            return Check(name, True, f"{folder} can be written")
    except UserError as error:
        return Check(name, False, str(error), "RAYKD_CACHE=DIR")
    except OSError as error:
        return Check(name, False, f"{folder} cannot be written: {error.strerror}", "RAYKD_CACHE=DIR")


def check_storage(where: Storage | Path) -> Check:
    """Do new files, renames over old files, fsync and locks work there, as sweeps need them?"""
    name, storage = "storage", open_storage(where)
    if storage.uri:
        return answered(name, lambda: _try_remote(storage.uri))
    place = _existing(storage.folder)
    mend = "another folder: `--storage DIR`"
    try:
        with tempfile.TemporaryDirectory(prefix=".raykd-doctor-", dir=place) as folder:
            problem = _try_files(Path(folder))
    except OSError as error:
        return Check(name, False, f"{place} cannot be written: {error.strerror}", mend)
    if problem:
        return Check(name, False, f"{place} {problem}", mend + " on a local disk, or NFS with locks")
    return Check(name, True, f"{storage}: files, renames and locks work")


def check_disk(storage: Path, need: int = _NEED_DISK) -> Check:
    """Are `need` bytes free where sweeps are written?"""
    place = _existing(storage)
    free = shutil.disk_usage(place).free
    said = f"{free / GIB:.1f} GiB free in {place}"
    if free < need:
        mend = f"make room for at least {need / GIB:.1f} GiB, or choose another folder with --storage"
        return Check("disk", False, said, mend)
    return Check("disk", True, said)


def _try_remote(uri: str) -> str:
    """List, read and write there. Raises `UserError` where that fails."""
    from raykd.storage.remote import Remote

    remote = Remote.connect(uri)
    remote.check()
    remote.check_writable()
    return f"{remote.uri}: can be listed, read and written"


def _try_files(folder: Path) -> str | None:
    """What does not work in the folder: rename, fsync or locks; None if all do."""
    old, new = folder / "old", folder / "new"
    for path, text in ((old, "old"), (new, "new")):
        with path.open("w") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
    new.replace(old)
    if old.read_text() != "new" or new.exists():
        return "renames a file without replacing the old one"
    with old.open("r+") as first, old.open("r+") as second:
        fcntl.flock(first, fcntl.LOCK_EX)
        try:
            fcntl.flock(second, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return None
    return "gives a lock to two at once"


def _existing(path: Path) -> Path:
    """`path`, or the nearest folder above it that is there."""
    path = path.absolute()
    while not path.exists():
        path = path.parent
    return path
