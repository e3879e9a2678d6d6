"""One driver at a time on a remote storage, which knows no locks.

A driver puts a claim of its own to `SWEEP/driver/NONCE.json`, lists the claims, and has the sweep if no other
one is there; else it takes its own away, and waits or is refused. Storages show what was put to whoever lists
after it, so of two that ask at once at least one sees the other. The claim is put anew with every heartbeat;
one that is still for a minute, or whose process this machine knows to be dead, is taken over, and its driver,
should it come back, finds a claim of a later term and ends.
"""

from __future__ import annotations

import dataclasses
import random
import time

from raykd.storage.lease import Driver, Lease, LeaseRecord, outlast, stale_s, taken
from raykd.storage.remote import Remote
from raykd.storage.uri import shown

_FOLDER = "driver"
_TRIES = 8


def take(remote: Remote, sweep: str) -> Lease:
    """The sweep with this key, until it is closed; `UserError` naming who holds it already."""
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
        holders = [(claim, silent) for claim, silent in alive if claim.holds]
        if holders:
            _outlast(remote, sweep, *holders[0], where)
        else:
            time.sleep(random.uniform(0.1, 1.5))  # another one asks too: one of us comes first
    raise taken(alive[0][0], where)


def driver(remote: Remote, sweep: str) -> Driver | None:
    """The live process that holds the sweep with this key now."""
    found = [(claim, silent) for claim, silent in _all(remote, sweep, time.time()) if claim.holds]
    alive = [c for c, s in found if c.lives or (c.lives is None and s < stale_s())]
    return max(alive, key=lambda claim: claim.term).driver if alive else None


def _outlast(remote: Remote, sweep: str, claim: LeaseRecord, silent: float, where: str) -> None:
    began = time.monotonic()

    def look() -> tuple[LeaseRecord | None, float]:
        try:
            now = LeaseRecord.read(remote.get(_key(sweep, claim)))
        except FileNotFoundError:
            return None, 0.0
        return now, silent + time.monotonic() - began if now.beat == claim.beat else 0.0

    outlast(look, where)


def _hold(remote: Remote, sweep: str, claim: LeaseRecord) -> Lease:
    def keep() -> LeaseRecord | None:
        nonlocal claim
        found = [c for c, _ in _all(remote, sweep, None, claim)]
        later = [c for c in found if c.holds and c.term > claim.term]
        if later or claim.nonce not in [c.nonce for c in found]:
            remote.remove(_key(sweep, claim))
            return later[0] if later else LeaseRecord()  # who took it over has gone again
        claim = dataclasses.replace(claim, beat=claim.beat + 1)
        _put(remote, sweep, claim)
        return None

    _put(remote, sweep, claim)
    return Lease(keep, lambda: remote.remove(_key(sweep, claim)))


def _put(remote: Remote, sweep: str, claim: LeaseRecord) -> str:
    key = _key(sweep, claim)
    remote.put(key, claim.data())
    return key


def _others(remote: Remote, sweep: str, mine: LeaseRecord) -> list[tuple[LeaseRecord, float]]:
    return [(c, silent) for c, silent in _all(remote, sweep, None, mine) if c.nonce != mine.nonce]


def _all(
    remote: Remote, sweep: str, now: float | None, mine: LeaseRecord | None = None
) -> list[tuple[LeaseRecord, float]]:
    """Every claim with how long it has been still: by this clock, or since ours was put, by the storage's."""
    stored = remote.list(f"{sweep}/{_FOLDER}")
    if mine is not None:
        now = next((s.changed for s in stored if s.key == _key(sweep, mine)), None)
    found = []
    for key, _, changed in stored:
        try:
            claim = LeaseRecord.read(remote.get(key))
        except FileNotFoundError:
            continue
        if claim.nonce:
            found.append((claim, max(0.0, (time.time() if now is None else now) - changed)))
    return found


def _key(sweep: str, claim: LeaseRecord) -> str:
    return f"{sweep}/{_FOLDER}/{claim.nonce}.json"
