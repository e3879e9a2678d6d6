"""A new sweep that is refused or interrupted before its first record leaves nothing behind."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

from raykd.storage.driver import driver_of
from raykd.storage.folder_lease import LOCK
from raykd.storage.folders import LEDGER, holds_ledger, origin_of
from trainables.core.errors import SweepFailed, UserError
from trainables.core.storage_retry import limited

LOG = "log.txt"
_LOOK_S = 5.0


@contextlib.contextmanager
def fresh(folder: Path) -> Iterator[Callable[[], None]]:
    """Where the block raises and the sweep has no record, what was made for it goes, `folder` included.

    What was there before stays, and so does everything while another driver is at it. Yields what clears up,
    for a process that is ended by other means.
    """
    made = [path for path in (folder, *folder.parents) if not path.exists()]
    there = set() if made else {path.name for path in folder.iterdir()}

    def clear() -> None:
        with contextlib.suppress(OSError, SweepFailed, UserError), limited(_LOOK_S):
            driver = driver_of(folder)
            if not _begun(folder) and driver in (None, (socket.gethostname(), os.getpid())):
                for name in {LOG, LOCK, LEDGER} - there:
                    (folder / name).unlink(missing_ok=True)
                for path in made:  # the innermost first
                    with contextlib.suppress(FileNotFoundError):
                        path.rmdir()

    try:
        yield clear
    except BaseException:
        clear()
        raise


def _begun(folder: Path) -> bool:
    if origin_of(folder) is not None:
        return holds_ledger(folder)
    ledger = folder / LEDGER
    return ledger.exists() and ledger.stat().st_size > 0
