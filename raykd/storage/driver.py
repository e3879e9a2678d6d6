"""One driver at a time: who holds a sweep.

In a folder the driver holds `SWEEP/driver.lock` by flock, which the kernel releases however the driver dies.
A network folder may not show another host's flock, so the file also names its holder and changes with every
heartbeat: a lock of another machine counts until it has been still for a minute. A remote storage has no
flock at all; there `claims.py` does both parts.
"""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
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

from raykd.storage.folders import origin_of, own_sweep
from trainables import patience
from trainables.errors import SweepFailed, UserError
from trainables.files import open_file, opened, read_bytes, remove

LOCK = "driver.lock"
STALE = "RAYKD_LOCK_STALE"
_STALE_S = 60.0
_BEATS = 6  # in that time


class Driver(NamedTuple):
    """Who holds a sweep."""

    host: str
    pid: int


@dataclass(frozen=True)
class Claim:
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
    def mine(cls, **more: object) -> Claim:
        pid = os.getpid()
        known = cls(socket.gethostname(), pid, _machine(), _began(pid), uuid.uuid4().hex)
        return dataclasses.replace(known, **more)  # type: ignore[arg-type]

    @classmethod
    def read(cls, data: bytes) -> Claim:
        try:
            found = json.loads(data)
            return cls(**{f.name: found[f.name] for f in dataclasses.fields(cls) if f.name in found})
        except (ValueError, TypeError):
            return cls()

    def data(self) -> bytes:
        return json.dumps(dataclasses.asdict(self)).encode()

    @property
    def lives(self) -> bool | None:
        """Whether its process runs; None where this machine cannot know."""
        if not self.machine or self.machine != _machine():
            return None
        return _began(self.pid) == self.began


class Hold:
    """A sweep that is held. `keep` is called at every heartbeat, and says who has it if not we any more."""

    def __init__(self, keep: Callable[[], Claim | None], release: Callable[[], None]) -> None:
        stale_s()  # a wrong setting is told to the user and not to the thread
        self._keep = keep
        self._release = release
        self._kept = time.monotonic()
        self._lost: Claim | None = None
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
        with contextlib.suppress(OSError, SweepFailed), patience.limited(stale_s() / _BEATS):
            self._release()

    def _beat(self) -> None:
        while not self._done.wait(stale_s() / _BEATS):
            self._look()

    def _look(self) -> None:
        # A storage that is away is told by whoever writes; here the next beat tries again.
        with self._lock, contextlib.suppress(OSError, SweepFailed), patience.limited(stale_s() / _BEATS):
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


def driver_of(folder: Path) -> Driver | None:
    """The driver that is alive and holds this sweep now, or None."""
    origin = origin_of(folder)
    if origin is not None:
        from raykd.storage.claims import holder  # built on this module; needed for remote storages alone

        found = holder(origin.remote, origin.key(folder))
        return Driver(found.host, found.pid) if found is not None else None
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
        claim, alive = Claim.read(os.pread(descriptor, 4096, 0)), True
    finally:
        os.close(descriptor)
    return Driver(claim.host, claim.pid) if alive and claim is not None else None


def take_lock(folder: Path) -> Hold:
    """The sweep, until it is closed; `UserError` naming who holds it already."""
    origin = origin_of(folder)
    if origin is not None:
        from raykd.storage.claims import take

        return take(origin.remote, origin.key(folder))
    own_sweep(folder)
    descriptor = open_file(folder / LOCK, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        # A few tries, because `driver_of` in another process may be looking at this very moment.
        for attempt in range(5):
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if attempt == 4:
                    raise taken(Claim.read(os.pread(descriptor, 4096, 0)), str(folder)) from None
                time.sleep(0.05)
        outlast(lambda: _seen(folder), str(folder))
        return _hold(folder, descriptor)
    except BaseException:
        os.close(descriptor)
        raise


def outlast(look: Callable[[], tuple[Claim | None, float]], where: str) -> None:
    """Return once the claim that `look` finds is gone or stale; `UserError` as soon as it is seen to be
    alive.

    `look` gives the claim, if there is one, and for how long it has been still by the storage's own clock.
    """
    first: Claim | None = None
    while True:
        claim, silent = look()
        if claim is None or claim.lives is False or silent >= stale_s():
            return
        if claim.lives or (first is not None and (claim.nonce, claim.beat) != (first.nonce, first.beat)):
            raise taken(claim, where)
        if first is None:
            first = claim
            patience.tell(
                f"process {claim.pid} on {claim.host} drove this sweep until {silent:.0f} s ago; waiting up "
                f"to {stale_s() - silent:.0f} s to see whether it is alive"
            )
        time.sleep(min(1.0, stale_s() / _BEATS / 2))


def taken(claim: Claim, where: str) -> UserError:
    """The refusal of a second driver."""
    return UserError(
        "name",
        f"the sweep in {where} is being run by process {claim.pid} on {claim.host}",
        expected="one driver at a time; `raykd status` shows how it goes",
    )


def _hold(folder: Path, descriptor: int) -> Hold:
    claim = Claim.mine()

    def write() -> None:
        data = claim.data()
        os.pwrite(descriptor, data + b"\n", 0)
        os.ftruncate(descriptor, len(data) + 1)

    def keep() -> Claim | None:
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
    return Hold(keep, release)


def _seen(folder: Path) -> tuple[Claim | None, float]:
    """The claim in a folder's lock file, and for how long it has been still, by the clock of that folder."""
    try:
        data, changed = read_bytes(folder / LOCK), (folder / LOCK).stat().st_mtime
    except FileNotFoundError:
        return None, 0.0
    if not data.strip():
        return None, 0.0
    claim = Claim.read(data)
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
