"""A new sweep that is refused or interrupted before its first record leaves nothing behind."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Callable, Iterator

from raykd.storage.base import LEDGER, SweepFolder
from raykd.storage.folder_lease import LOCK
from trainables.core.errors import SweepFailed, UserError
from trainables.core.storage_retry import limited

LOG = "log.txt"
_LOOK_S = 5.0


@contextlib.contextmanager
def removed_if_empty(sweep: SweepFolder) -> Iterator[Callable[[], None]]:
    """If the block raises and the sweep has no record, remove what was made for it, its folder included.

    What was there before stays, and so does everything while another driver works on the sweep. Yields the
    function that removes, for a process that is ended by other means.
    """
    folder = sweep.path
    made = [path for path in (folder, *folder.parents) if not path.exists()]
    there = set() if made else {path.name for path in folder.iterdir()}

    def clear() -> None:
        with contextlib.suppress(OSError, SweepFailed, UserError), limited(_LOOK_S):
            driver = sweep.driver()
            if not sweep.read_ledger()[0] and driver in (None, (socket.gethostname(), os.getpid())):
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
