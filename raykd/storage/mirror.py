"""Copies what a driver writes in its working copy to the storage, again and again.

These are views only, which can be made again from the ledger: one that cannot be copied is tried again in the
next round.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from stat import S_ISREG

from raykd.storage.file_transfer import RemoteTransfer
from trainables.core.errors import StorageLost
from trainables.core.storage_retry import limited

_EVERY_S = 20.0
_BRIEF_S = 5.0  # a round waits no longer for a storage that does not answer
_LARGE, _LARGE_EVERY = 1 << 20, 6  # files of more bytes are copied in every sixth round only
_LEFT_OUT = ("trials", "references", "report.html")  # whoever writes these pushes them


@contextmanager
def mirrored(transfer: RemoteTransfer, folder: Path) -> Iterator[None]:
    """While this runs, files that are written in `folder` are pushed; all of them once more at the end."""
    mirror = _Mirror(transfer, folder)
    done = threading.Event()

    def go() -> None:
        while not done.wait(_EVERY_S):
            with limited(_BRIEF_S):
                mirror.round()

    thread = threading.Thread(target=go, name="mirror", daemon=True)
    thread.start()
    try:
        yield
    except BaseException:
        done.set()
        thread.join()
        with limited(_BRIEF_S):  # it may be the storage that failed
            mirror.round(last=True)
        raise
    done.set()
    thread.join()
    mirror.round(last=True)


class _Mirror:
    def __init__(self, transfer: RemoteTransfer, folder: Path) -> None:
        self._transfer = transfer
        self._folder = folder
        self._copied: dict[Path, tuple[int, int]] = {}  # -> time of change and size of the copy
        self._rounds = 0

    def round(self, last: bool = False) -> None:
        """Push what has changed since the last round."""
        self._rounds += 1
        for path in sorted(self._folder.rglob("*")):
            inside = path.relative_to(self._folder)
            hidden = any(part.startswith(".") for part in inside.parts)
            if inside.parts[0] in _LEFT_OUT or hidden or path.suffix == ".tmp":
                continue
            try:
                status = path.lstat()
                stamp = (status.st_mtime_ns, status.st_size)
                rare = status.st_size > _LARGE and self._rounds % _LARGE_EVERY and not last
                if S_ISREG(status.st_mode) and self._copied.get(path) != stamp and not rare:
                    self._transfer.push(path)
                    self._copied[path] = stamp
            except FileNotFoundError:
                continue  # it was removed or renamed in this moment
            except (OSError, StorageLost):
                return  # the next round, or the next driver, tries again
