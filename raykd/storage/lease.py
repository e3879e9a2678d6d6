"""A lease on a sweep: the record that names its driver, and the heartbeat that keeps it valid.

Folders and object stores hold it in different ways (`folder_lease.py`, `remote_lease.py`). The lease of a
driver on another machine is valid until there was no heartbeat for a minute (`RAYKD_LOCK_STALE`).
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import socket
import threading
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from trainables.core import storage_retry
from trainables.core.errors import SweepFailed, UserError

STALE = "RAYKD_LOCK_STALE"
_STALE_S = 60.0
BEATS = 6  # heartbeats in that time


class Driver(NamedTuple):
    """The process that drives a sweep."""

    host: str
    pid: int


@dataclass(frozen=True)
class LeaseRecord:
    """What a driver writes beside its sweep, as JSON."""

    host: str = "?"  # unknown: the driver has locked the file and not written to it yet
    pid: int = 0
    machine: str = ""  # host name, boot id and PID namespace
    began: str = ""  # when the process started: a later one may get the same pid
    nonce: str = ""
    beat: int = 0  # heartbeats so far
    holds: bool = True  # False: it only asks for the lease
    term: int = 1  # larger than that of the driver from which it took the sweep over

    @classmethod
    def mine(cls, **more: object) -> LeaseRecord:
        """A new record of this process, with further fields."""
        pid = os.getpid()
        known = cls(socket.gethostname(), pid, _machine(), _began(pid), uuid.uuid4().hex)
        return dataclasses.replace(known, **more)  # type: ignore[arg-type]

    @classmethod
    def read(cls, data: bytes) -> LeaseRecord:
        """The record in `data`; an empty one, without a nonce, where that is no record."""
        try:
            found = json.loads(data)
            return cls(**{f.name: found[f.name] for f in dataclasses.fields(cls) if f.name in found})
        except (ValueError, TypeError):
            return cls()

    def data(self) -> bytes:
        """What `read` reads."""
        return json.dumps(dataclasses.asdict(self)).encode()

    @property
    def driver(self) -> Driver:
        """Its process."""
        return Driver(self.host, self.pid)

    @property
    def lives(self) -> bool | None:
        """Whether its process runs; None where this machine cannot know."""
        if not self.machine or self.machine != _machine():
            return None
        return _began(self.pid) == self.began


class Lease:
    """A lease that this process holds, until `close`. A thread sends its heartbeats."""

    def __init__(self, keep: Callable[[], LeaseRecord | None], release: Callable[[], None]) -> None:
        """`keep` sends a heartbeat; if another driver has taken the sweep over, it returns that one's record.

        `release` gives the lease up.
        """
        stale_s()  # a wrong setting is an error here, and not in the thread
        self._keep = keep
        self._release = release
        self._kept = time.monotonic()
        self._lost: LeaseRecord | None = None
        self._done = threading.Event()
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._beat, name="heartbeat", daemon=True)
        self._thread.start()

    def verify(self) -> None:
        """`SweepFailed` if another driver has taken the sweep over: heartbeats failed for too long."""
        if self._lost is None and time.monotonic() - self._kept > stale_s() / 2:
            self._look()
        if self._lost is not None:
            raise SweepFailed(
                f"the sweep has been taken over by process {self._lost.pid} on {self._lost.host}, because "
                "this driver was not heard of for too long; it ends here, and what it does counts no more"
            )

    def close(self) -> None:
        """Give the lease up. Safe to call twice."""
        if self._done.is_set():
            return
        self._done.set()
        self._thread.join()
        with contextlib.suppress(OSError, SweepFailed), storage_retry.limited(stale_s() / BEATS):
            self._release()

    def _beat(self) -> None:
        while not self._done.wait(stale_s() / BEATS):
            self._look()

    def _look(self) -> None:
        # Whoever writes says that the storage is away; here the next heartbeat tries again.
        with self._lock, contextlib.suppress(OSError, SweepFailed), storage_retry.limited(stale_s() / BEATS):
            self._lost = self._lost or self._keep()
            self._kept = time.monotonic()


def stale_s() -> float:
    """For how many seconds a driver on another machine may send no heartbeat before it counts as dead."""
    return storage_retry.seconds_set(STALE, _STALE_S, lambda s: s > 0, "more than 0, such as 60")


def wait_until_stale(look: Callable[[], tuple[LeaseRecord | None, float]], where: str) -> None:
    """Return once the lease that `look` finds is gone or stale; `UserError` if its driver proves alive.

    `look` gives the record, None if there is none, and the seconds since its last heartbeat, by the storage's
    own clock.
    """
    first: LeaseRecord | None = None
    while True:
        record, silent = look()
        if record is None or record.lives is False or silent >= stale_s():
            return
        if record.lives or (first is not None and (record.nonce, record.beat) != (first.nonce, first.beat)):
            raise held_error(record, where)
        if first is None:
            first = record
            storage_retry.tell(
                f"process {record.pid} on {record.host} drove this sweep until {silent:.0f} s ago; waiting "
                f"up to {stale_s() - silent:.0f} s to see whether it is alive"
            )
        time.sleep(min(1.0, stale_s() / BEATS / 2))


def held_error(record: LeaseRecord, where: str) -> UserError:
    """The error of a second driver: `record` holds the lease."""
    return UserError(
        "name",
        f"the sweep in {where} is being run by process {record.pid} on {record.host}",
        expected="one driver at a time; `raykd status` shows how it goes",
    )


def _machine() -> str:
    parts = [socket.gethostname()]
    with contextlib.suppress(OSError):
        parts.append(Path("/proc/sys/kernel/random/boot_id").read_text().strip())
        parts.append(str(Path("/proc/self/ns/pid").readlink()))
    return " ".join(parts)


def _began(pid: int) -> str:
    """When a process was started, in the kernel's own count; "" if there is no such process."""
    try:
        # The fields behind the name, which may hold anything: state, parent, ...; the 20th is the start.
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return "" if fields[0] == "Z" else fields[19]
    except (OSError, IndexError):
        pass
    if Path("/proc/self/stat").exists():
        return ""
    with contextlib.suppress(OSError, OverflowError):
        os.kill(pid, 0)
        return "alive"
    return ""
