"""The lease on a sweep in a folder: `SWEEP/driver.lock`, held by flock.

The kernel releases the flock however the driver dies. A network file system may not show the flock of another
host, so the file also names its driver and changes with every heartbeat.
"""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import os
import time
import uuid
from pathlib import Path

from raykd.storage.lease import Driver, Lease, LeaseRecord, held_error, stale_s, wait_until_stale
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
        # A shared lock, released at once: it fails only while a driver holds the exclusive one.
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        record, silent = _seen(folder)
        alive = record is not None and record.lives is None and silent < stale_s()
    except BlockingIOError:
        record, alive = LeaseRecord.read(os.pread(descriptor, 4096, 0)), True
    finally:
        os.close(descriptor)
    return record.driver if record is not None and alive else None


def take(folder: Path) -> Lease:
    """Take the lease on the sweep in this folder. Raises `UserError`, which names the driver there is."""
    descriptor = open_file(folder / LOCK, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        # A few tries: `driver` in another process may hold its shared lock at this moment.
        for attempt in range(5):
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if attempt == 4:
                    raise held_error(LeaseRecord.read(os.pread(descriptor, 4096, 0)), str(folder)) from None
                time.sleep(0.05)
        wait_until_stale(lambda: _seen(folder), str(folder))
        return _hold(folder, descriptor)
    except BaseException:
        os.close(descriptor)
        raise


def _hold(folder: Path, descriptor: int) -> Lease:
    record = LeaseRecord.mine()

    def write() -> None:
        data = record.data()
        os.pwrite(descriptor, data + b"\n", 0)
        os.ftruncate(descriptor, len(data) + 1)

    def keep() -> LeaseRecord | None:
        nonlocal record
        now, _ = _seen(folder)
        if now is not None and now.nonce not in ("", record.nonce):
            return now
        record = dataclasses.replace(record, beat=record.beat + 1)
        write()
        return None

    def release() -> None:
        try:
            now, _ = _seen(folder)
            if now is not None and now.nonce == record.nonce:
                os.ftruncate(descriptor, 0)  # nobody has to wait until it is stale
        finally:
            os.close(descriptor)

    with contextlib.suppress(OSError):  # on a full disk the flock still holds
        write()
    return Lease(keep, release)


def _seen(folder: Path) -> tuple[LeaseRecord | None, float]:
    """The record in a folder's lock file, and its age in seconds, by the clock of the file system."""
    try:
        data, changed = read_bytes(folder / LOCK), (folder / LOCK).stat().st_mtime
    except FileNotFoundError:
        return None, 0.0
    if not data.strip():
        return None, 0.0
    record = LeaseRecord.read(data)
    if record.lives is not None or not record.nonce:
        return record, 0.0 if record.nonce else stale_s()
    probe = folder / f".clock-{uuid.uuid4().hex[:8]}"
    try:
        with opened(probe, "xb") as file:
            file.write(b"?")
        return record, max(0.0, probe.stat().st_mtime - changed)
    except (OSError, UserError):  # a folder that this user may only read
        return record, max(0.0, time.time() - changed)
    finally:
        with contextlib.suppress(OSError):
            remove(probe)
