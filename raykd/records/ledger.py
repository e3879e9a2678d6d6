"""The ledger: what happened in a sweep, append-only and fsynced. All other files are made from it.

`SWEEP/ledger.jsonl` holds one record a line, as `CRC JSON`: eight hex digits of the CRC-32 of the JSON bytes,
a blank, the JSON. When `append` or `sync` returns the records are on the disk, and no crash can lose them. A
crash can only leave a torn last line, which `open` cuts off and reports. A damaged line with whole ones
behind it has another cause: it is refused, and `runs/repair.py` repairs it.

    with Ledger.create(folder) as ledger:
        ledger.append("start", trial="0a1b2c3d", attempt=1, lane="lane-0")
    records = Ledger.read(folder)  # from any process, also while a driver writes

Only the holder of the sweep's lease writes. On a remote storage the same lines lie in objects
(`storage/segments.py`).
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from raykd.records.encoding import decode, encode
from raykd.records.format import Record
from raykd.storage.append_log import AppendLog
from raykd.storage.base import LEDGER, SweepFolder
from raykd.storage.commands import command
from raykd.storage.lease import Lease
from raykd.storage.open_storage import open_sweep
from trainables.core import storage_retry
from trainables.core.errors import StorageLost, SweepFailed, UserError
from trainables.core.files import opened, sync_folder

TRIALS = "trials"  # the folder of the trials' files, beside the ledger

__all__ = ["KINDS", "LEDGER", "TRIALS", "Ledger", "Record", "decode", "encode"]

# Every kind of record, and the fields it must have. `format.py` has their types.
KINDS: dict[str, tuple[str, ...]] = {
    # the head of the file: what is searched and with which versions
    # source: {path, overrides, folder} of the file that the spec was read from; None if there was no file
    "sweep": ("spec", "spec_hash", "source", "sampler", "scheduler", "versions"),
    "driver": ("event", "host", "pid"),  # event: start | end
    "warm_start": ("rows", "told", "points"),  # what it has from earlier sweeps, as of `earlier.py`
    # lines: the damaged ones; remade, again, aside: trials proposed again, trained again, left out because of
    # them; students: trials that are trained again because their student was damaged. Later ones also have
    # retried: trials whose `retry` was lost
    "repair": ("lines", "remade", "again", "aside", "students"),
    "extend": ("samples",),  # how many more
    "retry": ("trials",),  # failed trials that are tried again, since the cause was not theirs
    "spent": ("lane_s",),  # seconds of lanes in all, of a sweep with a budget
    "quarantine": ("gpu", "reason"),  # a GPU on which this driver places no more lanes
    "reference": ("name", "label", "metrics", "trial"),  # to compare trials with: raw pixels, teacher, ...
    # of a student, in milliseconds and in words; see `trainables.planning.latency`
    "latency": ("student", "label", "metrics", "where"),
    "measured": ("name", "epoch", "metrics"),  # an epoch of a reference whose training has not ended
    # number: running from 0; arm, trial: 8 hex digits; replicate: the seed; params: {axis: value};
    # config: {flat name: value}; origin: sampler | point | preset | grid | replicate; attrs: Optuna's system
    # attrs
    "suggest": ("trial", "number", "arm", "replicate", "params", "config", "origin", "attrs"),
    # a proposal that was there before, or that cannot be trained (trial None, with the reason): costs nothing
    "repeat": ("number", "params", "trial", "reason", "attrs"),
    "exhausted": (),  # the space holds no further configuration
    "start": ("trial", "attempt", "lane"),  # attempt: 1, 2, ...
    "report": ("trial", "epoch", "metrics"),
    # verdict: go | stop; audit: true where the scheduler said stop, and the trial runs on for `proxy.audit`
    "verdict": ("trial", "epoch", "verdict"),
    # status: finished | stopped | failed; audited: the epoch of the verdict with `audit`, where there was one
    "end": ("trial", "status", "reason"),
    # a task of a suite on a network; `evaluations.py` says what the fields mean
    "evaluated": ("who", "network", "trial", "row", "seed", "suite", "suite_hash", "task", "key", "asked",
                  "split", "suite_seed", "place", "metrics", "folder", "reason"),
}  # fmt: skip


# Fields that records of this raykd may have as well; those of earlier versions lack them.
_SINCE = {
    "sweep": ("format", "plugins"),
    "driver": ("format", "versions", "device"),
    "verdict": ("audit",),
    "end": ("audited",),
    "suggest": ("student", "size"),  # 8 hex digits of what the student is; {params, macs}
    # of a refused configuration: limit -> share above it, its size, and the name that its trial would have
    "repeat": ("over", "size", "name"),
}


class Ledger:
    """The writing side, held by the one driver of a sweep. Safe to use from several threads.

    A sweep is given as a `SweepFolder`; the path of a plain folder will do.
    """

    def __init__(
        self, append_log: AppendLog, lock: Lease, records: list[Record], cut: str | None = None
    ) -> None:
        """Of a sweep whose lease is held; see `create` and `open`."""
        self.records = records  # those found when it was opened
        self.cut = cut  # says what `open` cut off, None where the file was whole
        self._append_log = append_log
        self._lock = lock
        self._changed = threading.Condition()
        self._lines: list[bytes] = []  # written and not on the disk yet
        self._written = self._synced = 0  # records of this driver, and how many of them are on the disk
        self._syncing = False  # whether a thread is writing lines to the disk
        self._broken: SweepFailed | None = None  # why nothing more can be written
        self._closed = False

    @classmethod
    def create(cls, place: SweepFolder | Path) -> Ledger:
        """Start the ledger of a new sweep; `UserError` if there is one already."""
        sweep = open_sweep(place)
        sweep.own(make=True)
        lock = sweep.take_lease()
        try:
            data, driver = sweep.read_ledger()
            if data and _parse(data, sweep)[0]:
                raise UserError(
                    "name", f"{sweep} already holds a sweep", expected="`resume`, or another name"
                )
            refuse_lost(sweep)
            return cls(sweep.open_ledger(driver, 0, 0), lock, [])
        except BaseException:
            lock.close()
            raise

    @classmethod
    def open(cls, place: SweepFolder | Path) -> Ledger:
        """Continue a sweep's ledger. A torn end is moved to a file `ledger.cut-TIME`, and `cut` says so.

        `UserError` if there is no ledger, if the sweep has a driver, or if a line in the middle is damaged.
        """
        sweep = open_sweep(place)
        _bytes_of(sweep)
        lock = sweep.take_lease()
        try:
            data, driver = _bytes_of(sweep)
            records, size = _parse(data, sweep)
            if not records:
                refuse_lost(sweep)
            cut = None
            if size < len(data):
                # The copy reaches the disk before the cut does.
                aside = keep_aside(sweep.path, "cut", data[size:])
                cut = (
                    f"{sweep}/{LEDGER}: the last {len(data) - size} bytes, behind record "
                    f"{len(records)}, were damaged and have been moved to {aside.name}"
                )
            return cls(sweep.open_ledger(driver, len(records), size), lock, records, cut)
        except BaseException:
            lock.close()
            raise

    @staticmethod
    def read(place: SweepFolder | Path) -> list[Record]:
        """Every whole record, oldest first. Takes no lease, so a driver may be writing."""
        sweep = open_sweep(place)
        records, _ = _parse(_bytes_of(sweep)[0], sweep)
        if not records:
            refuse_lost(sweep)
        return records

    def append(self, kind: str, **fields: Any) -> Record:
        """Add a record and return it, as it will be read back. It is on the disk when this returns.

        Raises what `write` and `sync` raise.
        """
        record = self.write(kind, **fields)
        self.sync()
        return record

    def write(self, kind: str, **fields: Any) -> Record:
        """Add a record and return it, as it will be read back. It is on the disk after the next `sync`.

        Raises `TypeError` for fields that are not those of its kind, `UserError` once the ledger is closed,
        and what `sync` raised if it has failed.
        """
        required = KINDS.get(kind)
        if required is None:
            raise TypeError(f"no such kind of record: {kind!r}")
        if set(required) != set(fields).difference(_SINCE.get(kind, ())):
            raise TypeError(f"a {kind!r} record has the fields {sorted(required)}, not {sorted(fields)}")
        with self._changed:
            if self._closed:
                raise UserError("ledger", "closed")
            self._refuse_broken()
            # The time is taken with the lock held, so that no line has an earlier time than the line before.
            text = encode({"kind": kind, "time": time.time(), **fields})
            self._lines.append(as_line(text))
            self._written += 1
        record: Record = decode(text)
        return record

    def sync(self) -> None:
        """Return once every record that was written before this call is on the disk.

        One thread writes at a time, and what other threads add meanwhile is written together by the next one.
        Raises `StorageLost` where the storage fails, and `SweepFailed` if another driver has taken the sweep
        over. Nothing can be written after either.
        """
        with self._changed:
            wanted = self._written
        while True:
            with self._changed:
                most = storage_retry.limit()
                if not self._changed.wait_for(lambda: self._synced >= wanted or not self._syncing, most):
                    raise StorageLost(f"the ledger could not be written for {most:g} s")
                if self._synced >= wanted:
                    return
                self._refuse_broken()
                lines, self._lines, self._syncing = self._lines, [], True
            try:
                self._lock.verify()
                self._append_log.append(b"".join(lines))
            except BaseException as error:  # nobody knows what is on the disk: nothing more from this driver
                broken = error if isinstance(error, SweepFailed) else SweepFailed(f"the ledger: {error!r}")
                self._broken = broken
                raise
            else:
                self._synced += len(lines)
            finally:
                with self._changed:
                    self._syncing = False
                    self._changed.notify_all()

    def _refuse_broken(self) -> None:
        if self._broken is not None:
            raise type(self._broken)(str(self._broken))

    def close(self) -> None:
        """Write what is not on the disk yet, if that can be done, and release log and lease.

        Safe to call twice.
        """
        with contextlib.suppress(SweepFailed):
            self.sync()
        with self._changed:
            self._changed.wait_for(lambda: not self._syncing)  # else it would write after the lease is gone
            self._closed = True
            self._append_log.close()
        self._lock.close()

    def __enter__(self) -> Ledger:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _bytes_of(sweep: SweepFolder) -> tuple[bytes, int]:
    """As `read_ledger`; `UserError` if there is no ledger."""
    data, driver = sweep.read_ledger()
    if data is None:
        raise UserError("name", f"there is no sweep in {sweep}", expected=f"a folder that holds {LEDGER}")
    return data, driver


def refuse_lost(sweep: SweepFolder) -> None:
    """`UserError` if a sweep has trials and its ledger is empty or gone."""
    if sweep.has_folder(TRIALS):
        state = "holds no whole record" if sweep.has_ledger() else "is gone"
        raise UserError(
            "ledger",
            f"{sweep}/{LEDGER} {state}, and there are trials beside it",
            expected="the file from a backup; without one, a new sweep under another name",
        )


def parse_lines(data: bytes) -> Iterator[Record | None]:
    """The record in each complete line; None for a damaged one."""
    for line in data.split(b"\n")[:-1]:
        head, blank, text = line[:8], line[8:9], line[9:]
        yield _decoded(text) if blank == b" " and head == b"%08x" % zlib.crc32(text) else None


def _decoded(text: bytes) -> Any:
    try:
        return decode(text)
    except (ValueError, TypeError, RecursionError):  # the checksum is right, and what is behind it no JSON
        return None


def as_line(text: bytes) -> bytes:
    """The line of a record that `encode` wrote."""
    return b"%08x %s\n" % (zlib.crc32(text), text)


def _parse(data: bytes, sweep: SweepFolder) -> tuple[list[Record], int]:
    """The whole records, and how many bytes they take. What is behind them is torn."""
    records: list[Record] = []
    bad: int | None = None
    for number, record in enumerate(parse_lines(data), start=1):
        if record is None:
            bad = bad or number
        elif bad:
            raise UserError(
                "ledger",
                f"{sweep}/{LEDGER}, line {bad} is damaged and line {number} behind it is not: no "
                "crash does this, so nothing is dropped in silence",
                expected=f"the file from a backup, or `{command('resume', sweep, '--repair')}`, which "
                "keeps a copy and trains again what the damage touched",
            )
        else:
            records.append(record)
    lines = data.split(b"\n", len(records))
    return records, len(data) - len(lines[-1])


def keep_aside(folder: Path, why: str, damaged: bytes) -> Path:
    """Write `damaged` to a new file `ledger.WHY-TIME`. It is on the disk when this returns."""
    stem = f"ledger.{why}-{time.strftime('%Y%m%dT%H%M%S')}"
    for number in range(1000):
        path = folder / (stem if number == 0 else f"{stem}-{number}")
        try:
            with opened(path, "xb") as file:
                file.write(damaged)
                file.flush()
                os.fsync(file.fileno())
        except FileExistsError:
            continue
        sync_folder(folder)
        return path
    raise UserError("ledger", f"{folder} holds too many {stem} files")
