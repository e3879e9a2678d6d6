"""The lease on a sweep in a folder: `SWEEP/driver.lock`, held by flock.

The kernel releases the flock however the driver dies. A network folder may not show another host's flock, so
the file also names its driver and changes with every heartbeat.
"""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import os
import time
import uuid
from pathlib import Path

from raykd.storage.lease import Driver, Lease, LeaseRecord, outlast, stale_s, taken
from trainables.core.errors import UserError
from trainables.core.files import open_file, opened, read_bytes, remove

LOCK = "driver.lock"


def driver(folder: Path) -> Driver | None:
    """The live process that holds the sweep in this folder now."""
    try:
        descriptor = open_file(folder / LOCK, os.O_RDONLY)
    except FileNotFoundError:
        return None
    try:
        # A shared lock, taken and dropped at once: it fails only while a driver holds the exclusive one.
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        claim, silent = _seen(folder)
        alive = claim is not None and claim.lives is None and silent < stale_s()
    except BlockingIOError:
        claim, alive = LeaseRecord.read(os.pread(descriptor, 4096, 0)), True
    finally:
        os.close(descriptor)
    return claim.driver if claim is not None and alive else None


def take(folder: Path) -> Lease:
    """The sweep in this folder, until it is closed; `UserError` naming who holds it already."""
    descriptor = open_file(folder / LOCK, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        # A few tries, because `driver_of` in another process may be looking at this very moment.
        for attempt in range(5):
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if attempt == 4:
                    raise taken(LeaseRecord.read(os.pread(descriptor, 4096, 0)), str(folder)) from None
                time.sleep(0.05)
        outlast(lambda: _seen(folder), str(folder))
        return _hold(folder, descriptor)
    except BaseException:
        os.close(descriptor)
        raise


def _hold(folder: Path, descriptor: int) -> Lease:
    claim = LeaseRecord.mine()

    def write() -> None:
        data = claim.data()
        os.pwrite(descriptor, data + b"\n", 0)
        os.ftruncate(descriptor, len(data) + 1)

    def keep() -> LeaseRecord | None:
        nonlocal claim
        now, _ = _seen(folder)
        if now is not None and now.nonce not in ("", claim.nonce):
            return now
        claim = dataclasses.replace(claim, beat=claim.beat + 1)
        write()
        return None

    def release() -> None:
        try:
            now, _ = _seen(folder)
            if now is not None and now.nonce == claim.nonce:
                os.ftruncate(descriptor, 0)  # nobody has to wait for us
        finally:
            os.close(descriptor)

    with contextlib.suppress(OSError):  # a full disk: the flock holds all the same
        write()
    return Lease(keep, release)


def _seen(folder: Path) -> tuple[LeaseRecord | None, float]:
    """The claim in a folder's lock file, and for how long it has been still, by the clock of that folder."""
    try:
        data, changed = read_bytes(folder / LOCK), (folder / LOCK).stat().st_mtime
    except FileNotFoundError:
        return None, 0.0
    if not data.strip():
        return None, 0.0
    claim = LeaseRecord.read(data)
    if claim.lives is not None or not claim.nonce:
        return claim, 0.0 if claim.nonce else stale_s()
    probe = folder / f".clock-{uuid.uuid4().hex[:8]}"
    try:
        with opened(probe, "xb") as file:
            file.write(b"?")
        return claim, max(0.0, probe.stat().st_mtime - changed)
    except (OSError, UserError):  # a folder that we may only read
        return claim, max(0.0, time.time() - changed)
    finally:
        with contextlib.suppress(OSError):
            remove(probe)
