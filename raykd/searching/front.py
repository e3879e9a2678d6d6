"""The front of a sweep: the students of which no other one has a better score and is as small."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from raykd.records.history import ENDED_WELL, SIZES, History, TrialRecord
from raykd.stats.pareto import on_front
from trainables.core.errors import SweepFailed

_USUAL = ("macs",)  # what the score is weighed against where the sweep does not say


class Weighed(NamedTuple):
    """A configuration with a score and a size. With several seeds its score is their mean."""

    trial: TrialRecord  # of several seeds the one with the best score
    score: float
    sizes: tuple[float, ...]  # in the order of `objectives`
    front: bool  # whether no other one is better in everything


def objectives(history: History) -> tuple[str, ...]:
    """The sizes that the score of this sweep is weighed against."""
    asked = tuple(str(name) for name in history.spec.get("objective", ()) if name in SIZES)
    return asked or _USUAL


def weighed(history: History) -> list[Weighed]:
    """Every configuration that ended well, with a score and all sizes, the smallest first.

    A stopped trial counts with the best score that it reached. Of a configuration whose seeds have not all
    ended, those that have count.
    """
    names = objectives(history)
    arms: dict[str, list[TrialRecord]] = {}
    for trial in history.trials.values():
        if (
            trial.status in ENDED_WELL
            and trial.best is not None
            and all(name in trial.size for name in names)
        ):
            arms.setdefault(trial.arm, []).append(trial)
    rows = []
    for trials in arms.values():
        best = max(trials, key=_score)
        mean = sum(map(_score, trials)) / len(trials)
        rows.append((best, mean, tuple(float(best.size[name]) for name in names)))
    rows.sort(key=lambda row: (*row[2], -row[1]))
    flags = on_front([(score, *(-size for size in sizes)) for _, score, sizes in rows]) if rows else ()
    return [Weighed(*row, bool(flag)) for row, flag in zip(rows, flags, strict=True)]


def front(history: History) -> Sequence[Weighed]:
    """Those on the front, the smallest first. Raises `SweepFailed` where there is none yet."""
    found = [one for one in weighed(history) if one.front]
    if not found:
        raise SweepFailed("no trial of this sweep has ended with a score and a known size yet")
    return found


def _score(trial: TrialRecord) -> float:
    return trial.best[0] if trial.best is not None else float("nan")
