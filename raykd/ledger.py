"""The ledger: what happened in a sweep, append-only and fsynced. The one truth; all else is a view of it.

`SWEEP/ledger.jsonl` holds one record a line, as `CRC JSON`: eight hex digits of the CRC-32 of the JSON bytes,
a blank, the JSON. `append` returns once the record is on the disk, so whoever acts after it acts on
something that a crash cannot take back. A crash can only leave a torn last line, which `open` cuts off and
says; a bad line with good ones behind it is damage of another kind: it is refused, and `repair.py` mends it.

    with Ledger.create(folder) as ledger:
        ledger.append("start", trial="0a1b2c3d", attempt=1, lane="lane-0")
    records = Ledger.read(folder)  # from any process, also while a driver writes

One driver writes, the holder of the lock in `driver.py`.
"""

from __future__ import annotations

import json
import math
import os
import threading
import time
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from raykd.driver import take_lock
from trainables.errors import UserError

LEDGER = "ledger.jsonl"
TRIALS = "trials"  # the folder of the trials' files, beside it

Record = dict[str, Any]  # "kind", "time" (unix seconds), and the fields of its kind

# Every kind of record, and the fields it must have.
KINDS: dict[str, tuple[str, ...]] = {
    # the head of the file: what is searched and with which versions
    # source: {path, overrides} that the spec was read from, or None
    "sweep": ("spec", "spec_hash", "source", "sampler", "scheduler", "versions"),
    "driver": ("event", "host", "pid"),  # event: start | end
    # lines: those found damaged; remade, again, aside: trials proposed, trained, left out because of it;
    # students: trials that are trained again because their student was damaged
    "repair": ("lines", "remade", "again", "aside", "students"),
    "extend": ("samples",),  # how many more
    "reference": ("name", "label", "metrics", "trial"),  # a row to compare with: raw pixels, teacher, ...
    # number: running from 0; arm, trial: 8 hex digits; replicate: the seed; params: {axis: value};
    # config: {flat name: value}; origin: sampler | point | grid | replicate; attrs: Optuna's system attrs
    "suggest": ("trial", "number", "arm", "replicate", "params", "config", "origin", "attrs"),
    # proposed again, or cannot be trained (trial None, with the reason): costs nothing
    "repeat": ("number", "params", "trial", "reason", "attrs"),
    "exhausted": (),  # the space holds no further configuration
    "start": ("trial", "attempt", "lane"),  # attempt: 1, 2, ...
    "report": ("trial", "epoch", "metrics"),
    "verdict": ("trial", "epoch", "verdict"),  # go | stop
    "end": ("trial", "status", "reason"),  # finished | stopped | failed
}


class Ledger:
    """The writing side, held by the one driver of a sweep. Safe to use from several threads."""

    def __init__(
        self, folder: Path, descriptor: int, lock: int, records: list[Record], cut: str | None
    ) -> None:
        self.folder = folder
        self.records = records  # those found when it was opened
        self.cut = cut  # says what `open` cut off, None where the file was whole
        self._descriptor = descriptor
        self._lock = lock
        self._mutex = threading.Lock()
        self._size = os.fstat(descriptor).st_size
        self._broken: str | None = None

    @classmethod
    def create(cls, folder: Path) -> Ledger:
        """Start the ledger of a new sweep; `UserError` where there is one already."""
        folder.mkdir(parents=True, exist_ok=True)
        lock = take_lock(folder)
        path = folder / LEDGER
        try:
            records = _parse(path.read_bytes(), path)[0] if path.exists() else []
            if records:
                raise UserError(
                    "name", f"{folder} already holds a sweep", expected="`resume`, or another name"
                )
            refuse_lost(folder)
            path.unlink(missing_ok=True)  # its driver died before anything was recorded
            descriptor = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_EXCL, 0o644)
        except BaseException:
            os.close(lock)
            raise
        # Without these a crash can leave a ledger whose records are on the disk and whose name is not.
        sync_folder(folder)
        sync_folder(folder.parent)
        return cls(folder, descriptor, lock, [], None)

    @classmethod
    def open(cls, folder: Path) -> Ledger:
        """Go on with a sweep. A torn tail is moved aside to `ledger.cut-TIME`, and `cut` says so.

        `UserError` where there is no ledger, where another driver holds it, or where a line in the middle
        is damaged.
        """
        path = _path(folder)
        lock = take_lock(folder)
        try:
            data = path.read_bytes()
            records, whole = _parse(data, path)
            if not records:
                refuse_lost(folder)
            cut = None
            if whole < len(data):
                # The copy reaches the disk before the cut does.
                aside = keep_aside(folder, "cut", data[whole:])
                cut = (
                    f"{path}: the last {len(data) - whole} bytes, behind record {len(records)}, were damaged "
                    f"and have been moved to {aside.name}"
                )
            descriptor = os.open(path, os.O_RDWR | os.O_APPEND)
            if cut is not None:
                os.ftruncate(descriptor, whole)
                os.fsync(descriptor)
        except BaseException:
            os.close(lock)
            raise
        return cls(folder, descriptor, lock, records, cut)

    @staticmethod
    def read(folder: Path) -> list[Record]:
        """Every whole record, oldest first. Takes no lock: works while a driver writes, and after it died."""
        path = _path(folder)
        records = _parse(path.read_bytes(), path)[0]
        if not records:
            refuse_lost(folder)
        return records

    def append(self, kind: str, **fields: Any) -> Record:
        """Add one record and return it, as it will be read back. It is on the disk when this returns."""
        required = KINDS.get(kind)
        if required is None:
            raise TypeError(f"no such kind of record: {kind!r}")
        if set(required) != set(fields):
            raise TypeError(f"a {kind!r} record has the fields {sorted(required)}, not {sorted(fields)}")
        with self._mutex:
            if self._broken:
                raise UserError("ledger", self._broken)
            # The time is taken inside, so that the times of successive lines never go back by threads' races.
            text = encode({"kind": kind, "time": time.time(), **fields})
            line = as_line(text)
            try:
                written = 0
                while written < len(line):
                    written += os.write(self._descriptor, line[written:])
                os.fsync(self._descriptor)
            except OSError as error:
                self._give_up(error)
            self._size += len(line)
        record: Record = decode(text)
        return record

    def close(self) -> None:
        """Let go of file and lock. Safe to call twice."""
        with self._mutex:
            self._broken = self._broken or "closed"
            for descriptor in (self._descriptor, self._lock):
                if descriptor >= 0:
                    os.close(descriptor)
            self._descriptor = self._lock = -1

    def __enter__(self) -> Ledger:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _give_up(self, error: OSError) -> None:
        # After a failed write or fsync nobody knows what is on the disk, and a later record behind a torn one
        # would be damage in the middle. So: back to the last whole record, and nothing more from this driver.
        self._broken = (
            f"{self.folder / LEDGER} cannot be written: {error.strerror}; make room, then `raykd resume`"
        )
        try:
            os.ftruncate(self._descriptor, self._size)
            os.fsync(self._descriptor)
        except OSError:
            pass  # `open` will cut the torn tail
        raise UserError("ledger", self._broken) from error


def _path(folder: Path) -> Path:
    path = folder / LEDGER
    if not path.is_file():
        raise UserError("name", f"there is no sweep in {folder}", expected=f"a folder that holds {LEDGER}")
    return path


def refuse_lost(folder: Path) -> None:
    """`UserError` where trials lie in a folder whose ledger holds nothing, or is not there."""
    if (folder / TRIALS).is_dir():
        state = "holds no whole record" if (folder / LEDGER).exists() else "is gone"
        raise UserError(
            "ledger",
            f"{folder / LEDGER} {state}, and there are trials beside it",
            expected="the file from a backup; without one, a new sweep under another name",
        )


def parse_lines(data: bytes) -> Iterator[Record | None]:
    """The record in each line that has an end; None for a damaged one."""
    for line in data.split(b"\n")[:-1]:
        head, blank, text = line[:8], line[8:9], line[9:]
        yield decode(text) if blank == b" " and head == b"%08x" % zlib.crc32(text) else None


def as_line(text: bytes) -> bytes:
    """The line of a record that `encode` wrote."""
    return b"%08x %s\n" % (zlib.crc32(text), text)


def _parse(data: bytes, path: Path) -> tuple[list[Record], int]:
    """The whole records, and how many bytes they take. What follows is torn."""
    records: list[Record] = []
    bad: int | None = None
    for number, record in enumerate(parse_lines(data), start=1):
        if record is None:
            bad = bad or number
        elif bad:
            raise UserError(
                "ledger",
                f"{path}, line {bad} is damaged and line {number} behind it is not: no crash does this, "
                "so nothing is dropped in silence",
                expected="the file from a backup, or "
                f"`raykd resume {path.parent.name} --repair`, which keeps "
                "a copy and trains again what the damage touched",
            )
        else:
            records.append(record)
    lines = data.split(b"\n", len(records))
    return records, len(data) - len(lines[-1])


def keep_aside(folder: Path, why: str, damaged: bytes) -> Path:
    """Write `damaged` to a new file `ledger.WHY-TIME`; it is on the disk when this returns."""
    stem = f"ledger.{why}-{time.strftime('%Y%m%dT%H%M%S')}"
    for number in range(1000):
        path = folder / (stem if number == 0 else f"{stem}-{number}")
        try:
            with path.open("xb") as file:
                file.write(damaged)
                file.flush()
                os.fsync(file.fileno())
        except FileExistsError:
            continue
        sync_folder(folder)
        return path
    raise UserError("ledger", f"{folder} holds too many {stem} files")


def sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def encode(value: Any) -> bytes:
    """One line of ASCII JSON. JSON has no NaN and no infinity: they are written as `{"$float": "nan"}`."""
    return json.dumps(_plain(value), separators=(",", ":"), allow_nan=False).encode("ascii")


def decode(text: bytes) -> Any:
    """What `encode` was given, with tuples as lists."""
    return json.loads(text, object_hook=_rich)


def _plain(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return {"$float": repr(float(value))}
    if value is None or isinstance(value, str | int | float):  # bool is an int
        return value
    if isinstance(value, dict):
        # A key of the user's own that starts with $ gets a second one, so that it is not taken for ours.
        return {f"${k}" if str(k).startswith("$") else str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if hasattr(value, "item"):  # a NumPy scalar
        return _plain(value.item())
    raise TypeError(f"the ledger holds plain JSON, not {value!r}")


def _rich(found: dict[str, Any]) -> Any:
    if len(found) == 1 and "$float" in found:
        return float(found["$float"])
    return {k[1:] if k.startswith("$") else k: v for k, v in found.items()}
