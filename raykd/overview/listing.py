"""The sweeps of a storage, with how they stand; folders that cannot be read are listed as such."""

from __future__ import annotations

import math
from concurrent.futures import ThreadPoolExecutor
from typing import TypedDict

from raykd.records import views
from raykd.records.history import History
from raykd.records.ledger import Ledger
from raykd.storage.base import Storage, SweepFolder
from trainables.core.errors import SweepFailed, UserError, first_line

_AT_ONCE = 8  # ledgers that are read together: each waits for the network


class Listed(TypedDict):
    """One sweep, as `raykd list sweeps --json` prints it."""

    name: str
    kind: str  # search | study; "" where its ledger cannot be read
    state: str  # running | interrupted | done | damaged | half-written
    done: int  # trials that have ended well
    failed: int
    trials: int  # in all
    score: float | None  # of the best trial
    score_se: float | None  # its standard error, from the validation images
    changed: float | None  # unix seconds of its last record
    bytes: int  # of all of its files
    problem: str  # why it cannot be read


def sweeps(storage: Storage) -> list[Listed]:
    """Every sweep and study of `storage`, by name, and every folder that is left of one."""
    names = sorted({*storage.sweeps(), *storage.remains()})
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        return list(pool.map(lambda name: listed(storage.sweep(name)), names))


def listed(sweep: SweepFolder) -> Listed:
    """How a sweep stands. A folder that is none, or whose ledger is damaged, says so in `state`."""
    row: Listed = {
        "name": sweep.name,
        "kind": "",
        "state": "damaged",
        "done": 0,
        "failed": 0,
        "trials": 0,
        "score": None,
        "score_se": None,
        "changed": None,
        "bytes": 0,
        "problem": "",
    }
    try:
        row["bytes"] = sweep.size()
        records = Ledger.read(sweep) if sweep.has_ledger() else []
        history = History.of(records)
        if history.sweep is None:
            row["state"], row["problem"] = "half-written", "its driver died before the first record"
        else:
            _stands(row, history, sweep)
            row["changed"] = float(records[-1]["time"])
    except (UserError, SweepFailed, OSError) as error:
        row["problem"] = first_line(error)
    except (
        ValueError,
        TypeError,
        LookupError,
        AttributeError,
    ) as error:  # its records contradict each other
        row["problem"] = f"its ledger makes no sense: {type(error).__name__}: {first_line(error)}"
    return row


def _stands(row: Listed, history: History, sweep: SweepFolder) -> None:
    said = views.status(history, sweep)
    counts, best = said["trials"], history.best()
    score = best.best if best is not None else None
    error = best.reports[score[1]].get("score_se", math.nan) if best is not None and score else math.nan
    row["kind"] = "study" if history.study else "search"
    row["state"] = said["state"]
    row["done"], row["failed"] = counts["finished"] + counts["stopped"], counts["failed"]
    row["trials"] = sum(counts.values())
    row["score"] = score[0] if score else None
    row["score_se"] = error if math.isfinite(error) else None
