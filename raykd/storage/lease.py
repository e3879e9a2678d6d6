"""A lease on a sweep: the record by which its driver is known, and the heartbeat that keeps it.

Folders and remote storages keep it in different ways (`folder_lease.py`, `remote_lease.py`). A lease of
another machine counts until it has been silent for a minute (`RAYKD_LOCK_STALE`).
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
BEATS = 6  # in that time


class Driver(NamedTuple):
    """Who holds a sweep."""

    host: str
    pid: int


@dataclass(frozen=True)
class LeaseRecord:
    """What a driver says of itself beside a sweep."""

    host: str = "?"  # between taking the lock and writing its name a driver has none
    pid: int = 0
    machine: str = ""  # this start of this machine, and who counts its processes
    began: str = ""  # the process's start, so that another one with its number is told from it
    nonce: str = ""
    beat: int = 0
    holds: bool = True  # False: asks for the sweep
    term: int = 1  # higher than that of whoever it took the sweep over from

    @classmethod
    def mine(cls, **more: object) -> LeaseRecord:
        pid = os.getpid()
        known = cls(socket.gethostname(), pid, _machine(), _began(pid), uuid.uuid4().hex)
        return dataclasses.replace(known, **more)  # type: ignore[arg-type]

    @classmethod
    def read(cls, data: bytes) -> LeaseRecord:
        try:
            found = json.loads(data)
            return cls(**{f.name: found[f.name] for f in dataclasses.fields(cls) if f.name in found})
        except (ValueError, TypeError):
            return cls()

    def data(self) -> bytes:
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
    """A sweep that is held. `keep` is called at every heartbeat, and says who has it if not we any more."""

    def __init__(self, keep: Callable[[], LeaseRecord | None], release: Callable[[], None]) -> None:
        stale_s()  # a wrong setting is told to the user and not to the thread
        self._keep = keep
        self._release = release
        self._kept = time.monotonic()
        self._lost: LeaseRecord | None = None
        self._done = threading.Event()
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._beat, name="heartbeat", daemon=True)
        self._thread.start()

    def verify(self) -> None:
        """`SweepFailed` if another driver has taken the sweep over because this one was long silent."""
        if self._lost is None and time.monotonic() - self._kept > stale_s() / 2:
            self._look()
        if self._lost is not None:
            raise SweepFailed(
                f"the sweep has been taken over by process {self._lost.pid} on {self._lost.host}, because "
                "this driver was not heard of for too long; it ends here, and what it does counts no more"
            )

    def close(self) -> None:
        """Let the sweep go. Safe to call twice."""
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
        # A storage that is away is told by whoever writes; here the next beat tries again.
        with self._lock, contextlib.suppress(OSError, SweepFailed), storage_retry.limited(stale_s() / BEATS):
            self._lost = self._lost or self._keep()
            self._kept = time.monotonic()


def stale_s() -> float:
    """How long a driver on another machine may be silent before it counts as dead, seconds."""
    given = os.environ.get(STALE, "")
    try:
        seconds = float(given or _STALE_S)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < float("inf"):
        raise UserError(STALE, "is no number of seconds", value=given, expected="more than 0, such as 60")
    return seconds


def outlast(look: Callable[[], tuple[LeaseRecord | None, float]], where: str) -> None:
    """Return once the claim that `look` finds is gone or stale; `UserError` as soon as it is seen to be
    alive.

    `look` gives the claim, if there is one, and for how long it has been still by the storage's own clock.
    """
    first: LeaseRecord | None = None
    while True:
        claim, silent = look()
        if claim is None or claim.lives is False or silent >= stale_s():
            return
        if claim.lives or (first is not None and (claim.nonce, claim.beat) != (first.nonce, first.beat)):
            raise taken(claim, where)
        if first is None:
            first = claim
            storage_retry.tell(
                f"process {claim.pid} on {claim.host} drove this sweep until {silent:.0f} s ago; waiting up "
                f"to {stale_s() - silent:.0f} s to see whether it is alive"
            )
        time.sleep(min(1.0, stale_s() / BEATS / 2))


def taken(claim: LeaseRecord, where: str) -> UserError:
    """The refusal of a second driver."""
    return UserError(
        "name",
        f"the sweep in {where} is being run by process {claim.pid} on {claim.host}",
        expected="one driver at a time; `raykd status` shows how it goes",
    )


def _machine() -> str:
    parts = [socket.gethostname()]
    with contextlib.suppress(OSError):
        parts.append(Path("/proc/sys/kernel/random/boot_id").read_text().strip())
        parts.append(str(Path("/proc/self/ns/pid").readlink()))
    return " ".join(parts)


def _began(pid: int) -> str:
    """When a process was started, in the kernel's own count; "" where there is none."""
    try:
        # Behind the name, which may hold anything: state, parent, ...; the 20th of these is the start.
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
