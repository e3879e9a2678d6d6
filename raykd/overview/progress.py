"""How good a sweep was after how much compute: its records, played once more."""

from __future__ import annotations

from collections.abc import Sequence

from raykd.records.history import History
from raykd.records.ledger import Record

Leader = dict[int, float]  # seed -> best score so far, of the best setting; empty before the first score


def seconds_spent(records: Sequence[Record]) -> list[float]:
    """Seconds of training after each report, all lanes together, without pauses between drivers.

    Each report is of one epoch, so the number of reports is that of epochs. Raises `UserError` as `History`.
    """
    history, spent = History(), 0.0
    found: list[float] = []
    for record in records:
        name = record.get("trial")
        trial = history.trials.get(name) if isinstance(name, str) else None
        before = trial.wall_s if trial is not None else 0.0
        history.add(record)
        spent += trial.wall_s - before if trial is not None else 0.0
        if len(history.arrivals) > len(found):
            found.append(spent)
    return found


def leaders(records: Sequence[Record], reports: Sequence[int]) -> list[Leader]:
    """The best setting after so many reports, for each of `reports`, as `raykd best` would have named it."""
    history, found = History(), {0: Leader()}
    for record in records:
        history.add(record)
        count = len(history.arrivals)
        if count in reports and count not in found:
            found[count] = _leader(history)
    return [found[count] for count in reports]


def _leader(history: History) -> Leader:
    best = history.best()
    if best is None:
        return {}
    same = [trial for trial in history.trials.values() if trial.arm == best.arm]
    return {trial.replicate: trial.best[0] for trial in same if trial.best is not None}
