"""The lease on a sweep on an object store, which has no locks.

A driver writes a record of its own to `SWEEP/driver/NONCE.json` and lists the records. If there is no other
one it has the lease; else it removes its own, and waits or is refused. A list shows every object that was
written before it, so of two drivers that ask at once at least one sees the other. The record is written anew
with every heartbeat. A sweep is taken over if its record is a minute old, or if this machine knows that the
process is dead; should that driver come back, it finds a record of a later term and ends.
"""

from __future__ import annotations

import dataclasses
import random
import time

from raykd.storage.lease import Driver, Lease, LeaseRecord, held_error, stale_s, wait_until_stale
from raykd.storage.remote import Remote
from raykd.storage.uri import shown

_FOLDER = "driver"
_TRIES = 8


def take(remote: Remote, sweep: str) -> Lease:
    """Take the lease on the sweep with this key. Raises `UserError`, which names the driver there is."""
    where, term = shown(remote.uri, sweep), 1
    mine = LeaseRecord.mine(holds=False)
    for _ in range(_TRIES):
        key = _put(remote, sweep, dataclasses.replace(mine, term=term))
        others = _others(remote, sweep, mine)
        for other, silent in others:
            if other.lives is False or silent >= stale_s():
                term = max(term, other.term + 1)
                remote.remove(_key(sweep, other))
        alive = [(c, s) for c, s in others if c.lives is not False and s < stale_s()]
        if not alive:
            return _hold(remote, sweep, dataclasses.replace(mine, term=term, holds=True))
        remote.remove(key)
        holders = [(record, silent) for record, silent in alive if record.holds]
        if holders:
            _wait_until_stale(remote, sweep, *holders[0], where)
        else:
            time.sleep(random.uniform(0.1, 1.5))  # another one asks too: one of the two comes first
    raise held_error(alive[0][0], where)


def driver(remote: Remote, sweep: str) -> Driver | None:
    """The live process that holds the sweep with this key now."""
    found = [(record, silent) for record, silent in _all(remote, sweep, time.time()) if record.holds]
    alive = [c for c, s in found if c.lives or (c.lives is None and s < stale_s())]
    return max(alive, key=lambda record: record.term).driver if alive else None


def _wait_until_stale(remote: Remote, sweep: str, record: LeaseRecord, silent: float, where: str) -> None:
    began = time.monotonic()

    def look() -> tuple[LeaseRecord | None, float]:
        now = _read(remote, _key(sweep, record))
        if now is None:
            return None, 0.0
        return now, silent + time.monotonic() - began if now.beat == record.beat else 0.0

    wait_until_stale(look, where)


def _hold(remote: Remote, sweep: str, record: LeaseRecord) -> Lease:
    def keep() -> LeaseRecord | None:
        nonlocal record
        found = [c for c, _ in _all(remote, sweep, None, record)]
        later = [c for c in found if c.holds and c.term > record.term]
        if later or record.nonce not in [c.nonce for c in found]:
            remote.remove(_key(sweep, record))
            return later[0] if later else LeaseRecord()  # whoever took it over has ended
        record = dataclasses.replace(record, beat=record.beat + 1)
        _put(remote, sweep, record)
        return None

    _put(remote, sweep, record)
    return Lease(keep, lambda: remote.remove(_key(sweep, record)))


def _put(remote: Remote, sweep: str, record: LeaseRecord) -> str:
    key = _key(sweep, record)
    remote.put(key, record.data())
    return key


def _others(remote: Remote, sweep: str, mine: LeaseRecord) -> list[tuple[LeaseRecord, float]]:
    return [(c, silent) for c, silent in _all(remote, sweep, None, mine) if c.nonce != mine.nonce]


def _all(
    remote: Remote, sweep: str, now: float | None, mine: LeaseRecord | None = None
) -> list[tuple[LeaseRecord, float]]:
    """Every record with its age, seconds: at `now` by this machine's clock, or when `mine` was written."""
    listed = remote.list(f"{sweep}/{_FOLDER}")
    if mine is not None:
        now = next((s.changed for s in listed if s.key == _key(sweep, mine)), None)
    found = []
    for key, _, changed in listed:
        record = _read(remote, key)
        if record is not None:
            found.append((record, max(0.0, (time.time() if now is None else now) - changed)))
    return found


def _read(remote: Remote, key: str) -> LeaseRecord | None:
    """The record under `key`; None if it is gone, or stays unreadable.

    A store that replaces objects in two steps may give half a record while its driver writes it anew. It is
    read again then: a driver that is not seen would be a second one.
    """
    for pause in (0.05, 0.2, 0.5):
        try:
            record = LeaseRecord.read(remote.get(key))
        except FileNotFoundError:
            return None
        if record.nonce:
            return record
        time.sleep(pause)
    return None


def _key(sweep: str, record: LeaseRecord) -> str:
    return f"{sweep}/{_FOLDER}/{record.nonce}.json"
