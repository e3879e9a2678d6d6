"""One driver at a time: who holds a sweep.

The driver holds `SWEEP/driver.lock` by flock, which the kernel releases however the driver dies; the file
names its host and process for those who find it taken.
"""

from __future__ import annotations

import fcntl
import os
import socket
import time
from pathlib import Path
from typing import NamedTuple

from trainables.errors import UserError

LOCK = "driver.lock"


class Driver(NamedTuple):
    """Who holds a sweep."""

    host: str
    pid: int


def driver_of(folder: Path) -> Driver | None:
    """The driver that is alive and holds this sweep now, or None."""
    try:
        descriptor = os.open(folder / LOCK, os.O_RDONLY)
    except FileNotFoundError:
        return None
    try:
        # A shared lock, taken and dropped at once: it fails only while a driver holds the exclusive one.
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return _holder(descriptor)
    finally:
        os.close(descriptor)
    return None


def take_lock(folder: Path) -> int:
    """A descriptor that holds the sweep until it is closed; `UserError` naming who holds it already."""
    descriptor = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT, 0o644)
    # A few tries, because `driver_of` in another process may be looking at this very moment.
    for attempt in range(5):
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            break
        except BlockingIOError:
            if attempt == 4:
                holder = _holder(descriptor)
                os.close(descriptor)
                raise UserError(
                    "name",
                    f"the sweep in {folder} is being run by process {holder.pid} on {holder.host}",
                    expected="one driver at a time; `raykd status` shows how it goes",
                ) from None
            time.sleep(0.05)
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, f"{socket.gethostname()} {os.getpid()}\n".encode(), 0)
    return descriptor


def _holder(descriptor: int) -> Driver:
    host, _, pid = os.pread(descriptor, 4096, 0).decode(errors="replace").strip().partition(" ")
    # Between taking the lock and writing its name a driver has none.
    return Driver(host or "?", int(pid) if pid.isdigit() else 0)
