"""The ledger on an object store, where objects are written whole and never appended to.

    SWEEP/ledger/000002-0000000412.jsonl    of the 2nd driver, from record 412 on (counted from 0)

Each object holds at most 64 KiB of the ledger's lines, or those of one append. An append writes the last
object anew, with more lines, and returns when the storage has it. Every driver begins objects of its own.
From the record on at which a later driver began, the objects of earlier drivers do not count: a driver that
was taken for dead but lives cannot change the ledger.
"""

from __future__ import annotations

import re
from concurrent.futures import ThreadPoolExecutor

from raykd.storage.remote import Remote
from raykd.storage.uri import shown
from trainables.core.errors import UserError

FOLDER = "ledger"  # of a sweep, beside its trials
_MOST = 64 << 10  # bytes
_NAME = re.compile(r"(\d{6})-(\d{10})\.jsonl")


class Segments:
    """The `AppendLog` of one driver: appends lines behind those that `read` gave."""

    def __init__(self, remote: Remote, sweep: str, driver: int, count: int) -> None:
        """`sweep` is its key, `driver` larger than any before, `count` the number of lines so far."""
        self._remote = remote
        self._folder = f"{sweep}/{FOLDER}"
        self._driver = driver
        self._count = self._start = count
        self._tail = b""

    def append(self, lines: bytes) -> None:
        """Add whole lines; the storage has them when this returns. Raises `StorageLost`."""
        tail, start = self._tail + lines, self._start
        if len(tail) > _MOST:
            tail, start = lines, self._count
        self._remote.put(f"{self._folder}/{self._driver:06d}-{start:010d}.jsonl", tail)
        self._tail, self._start, self._count = tail, start, self._count + lines.count(b"\n")

    def close(self) -> None:
        """There is nothing to close."""


def read(remote: Remote, sweep: str) -> tuple[bytes, int]:
    """The ledger's lines, and the number of its last driver (0: there is none).

    Raises `UserError` if an object is missing in the middle.
    """
    folder = f"{sweep}/{FOLDER}"
    keys = [entry.key for entry in remote.list(folder)]
    matches = [(_NAME.fullmatch(key.rpartition("/")[2]), key) for key in keys]
    found = sorted((int(match[1]), int(match[2]), key) for match, key in matches if match)
    lines: list[bytes] = []
    with ThreadPoolExecutor(8) as pool:
        contents = list(pool.map(remote.get, [key for _, _, key in found]))
    for (_, start, key), content in zip(found, contents, strict=True):
        if start > len(lines):
            raise UserError(
                "ledger",
                f"before {shown(remote.uri, key)} there are {len(lines)} records of {start}: "
                "an object is gone",
                expected="it from a backup of the bucket, or an earlier version where those are kept",
            )
        lines[start:] = content.splitlines(keepends=True)
    return b"".join(lines), max((driver for driver, _, _ in found), default=0)
