"""What a sweep's ledger says, for `status` and `best`: read by any process, at any time."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

from raykd.records.history import History
from raykd.records.ledger import Ledger, Record
from raykd.storage.base import Storage, SweepFolder
from raykd.storage.open_storage import open_storage, open_sweep
from trainables.core.errors import SweepFailed, UserError


def find(place: Storage | Path, name: str) -> SweepFolder:
    """The sweep called `name` in a storage; `UserError` with the nearest name if there is none."""
    storage = open_storage(place)
    known = storage.sweeps()
    if name not in known:
        problem = f"no such sweep in {storage}" if known else f"{storage} holds no sweeps"
        raise UserError(
            "name", problem, value=name, expected="a sweep's name, or `--storage DIR`", choices=known
        )
    sweep = storage.sweep(name)
    sweep.make_copy()
    return sweep


def read(place: SweepFolder | Path) -> History:
    """What a sweep's ledger says, as of now. Raises as `Ledger.read`."""
    return History.of(Ledger.read(place))


def status(history: History, place: SweepFolder | Path) -> dict[str, Any]:
    """Counts of trials by status, the best one, and the process that drives the sweep."""
    sweep = open_sweep(place)
    driver = sweep.driver()
    counts = history.counts()
    counts["waiting"] += max(0, history.total - len(history.trials))  # those not proposed yet
    if not driver:
        counts["waiting"] += counts["running"]
        counts["running"] = 0
    best = history.best()
    return {
        "name": sweep.name,
        "state": "running" if driver else "done" if history.done else "interrupted",
        "driver": {"host": driver.host, "pid": driver.pid} if driver else None,
        "samples": history.samples,
        "trials": counts,
        "lane_s": history.lane_s,
        "refused": len(history.refused),
        "best": _score(best) if best is not None else None,
        "repairs": history.repairs,
        "quarantine": [{"gpu": record["gpu"], "reason": record["reason"]} for record in history.quarantined],
    }


def repaired(record: Record) -> str:
    """What a repair of the ledger found and did, in one line, from its record."""
    found = {
        "damaged lines": [str(line) for line in record["lines"]],
        "proposed again": record["remade"],
        "trained again": [*record["again"], *record["students"]],
        "taken up again": record.get("retried", []),  # ledgers of earlier versions lack it
        "left out": record["aside"],
    }
    return "; ".join(f"{what} {', '.join(which)}" for what, which in found.items() if which)


def refresh(history: History, folder: Path) -> None:
    """Write the tables of a sweep without a driver: the last one may have died before it wrote them."""
    from raykd.records.tables import write_tables

    with contextlib.suppress(OSError, UserError):  # somebody else's sweep is not ours to write in
        write_tables(history, folder)


def best(history: History) -> dict[str, Any]:
    """The best trial with its config, and the references. `SweepFailed` while no trial has a score."""
    found = history.best()
    if found is None:
        raise SweepFailed("no trial of this sweep has a score yet")
    return {
        **_score(found),
        "arm": found.arm,
        "replicate": found.replicate,
        "status": found.status,
        "params": found.params,
        "config": found.config,
        "size": found.size,
        "metrics": found.reports[found.best[1]] if found.best else {},
        "references": {name: record["metrics"].get("score") for name, record in history.references.items()},
    }


def _score(trial: Any) -> dict[str, Any]:
    score, epoch = trial.best
    return {"trial": trial.trial, "score": score, "epoch": epoch}
