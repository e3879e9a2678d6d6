"""Sweeps beside each other: what differs in their specs, how good each was after how much, which is ahead."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from raykd.overview.comparable import incomparable
from raykd.overview.progress import Leader, leaders, seconds_spent
from raykd.records.history import History
from raykd.records.ledger import Ledger
from raykd.records.recorded_spec import spec_of
from raykd.spec.difference import leaves
from raykd.stats.paired import paired_t
from raykd.storage.base import SweepFolder
from trainables.core.errors import UserError

_SHARES = (1 / 8, 1 / 4, 1 / 2, 1)  # of the smaller sweep's budget
_ALPHA = 0.05
_ABSENT = "–"
_ONE_SEED = "the best setting of each has one seed: a second one may turn it round"
_FEW_SEEDS = (
    "the best settings have fewer than two seeds in common, and the best of single runs is higher by luck"
)
_CHOSEN = "by which each setting was chosen: an interval without 0 is a hint, and no test"


@dataclass(frozen=True)
class Ahead:
    """Which sweep is ahead at the largest budget that all have had, against the second one."""

    name: str
    second: str
    by: float  # points, of the best settings' means over seeds
    low: float | None  # ends of the 95 % interval of the difference, paired by seed
    high: float | None
    seeds: int  # that both best settings were trained with
    said: str  # how far that is to be believed


@dataclass(frozen=True)
class Comparison:
    """What `raykd compare` shows. The tables of scores are empty where scores do not compare."""

    names: list[str]
    differences: list[list[Any]]  # field, then its value in each sweep
    incomparable: dict[str, list[list[Any]]]  # field -> its values in each sweep
    # Epochs of all trials together, then each sweep's best setting so far, the mean over its seeds.
    by_epochs: list[list[float | None]]
    by_hours: list[list[float | None]]  # hours of all GPUs, or of all workers, together; likewise
    hours_of: str  # GPU | CPU; "" where that is not known, and where the sweeps ran on both
    ahead: Ahead | None


def compare(sweeps: list[SweepFolder]) -> Comparison:
    """Compare two or more sweeps, as they are now. Raises `UserError` for fewer, and for one given twice."""
    names = [sweep.name if _once(sweep, sweeps) else str(sweep) for sweep in sweeps]
    if len(names) < 2:
        raise UserError("NAMES", "nothing to compare it with", value=names[0], expected="two sweeps or more")
    for at, name in enumerate(names):
        if name in names[:at]:
            raise UserError("NAMES", "stands there twice", value=name, expected="another sweep")
    records = [Ledger.read(sweep) for sweep in sweeps]
    histories = [History.of(each) for each in records]
    differences = _differences(histories)
    apart = incomparable(histories)
    if apart:
        return Comparison(names, differences, apart, [], [], "", None)
    spent = [seconds_spent(each) for each in records]
    whole = _budgets([len(each) for each in spent], round_up=True)
    best = [leaders(each, [int(budget) for budget in whole]) for each in records]
    devices = {_device(history) for history in histories}
    hours, by_hours = [], []
    if len(devices) == 1:
        rates = [_workers(history) / 3600 for history in histories]
        used = [[second * rate for second in each] for each, rate in zip(spent, rates, strict=True)]
        hours = _budgets([each[-1] if each else 0.0 for each in used], round_up=False)
        counts = [[bisect_right(each, budget) for budget in hours] for each in used]
        by_hours = [leaders(each, count) for each, count in zip(records, counts, strict=True)]
    return Comparison(
        names,
        differences,
        {},
        _table(whole, best),
        _table(hours, by_hours),
        devices.pop() if hours else "",
        _ahead(names, [each[-1] if each else {} for each in best]),
    )


def _once(sweep: SweepFolder, sweeps: list[SweepFolder]) -> bool:
    """Whether its name says which of them it is."""
    return len({str(other) for other in sweeps if other.name == sweep.name}) == 1


def _differences(histories: list[History]) -> list[list[Any]]:
    """Field and values of everything in which the specs, the user's code or raykd's version differ."""
    sides = []
    for history in histories:
        try:
            spec = spec_of(history).model_dump(mode="json")
        except UserError:  # of another version: as it was written down
            spec = dict(history.spec)
        head = history.sweep or {}
        spec = {name: value for name, value in spec.items() if name != "name"}
        code = {name: said["code"] for name, said in (head.get("plugins") or {}).items()}
        extra = {"code": code, "versions": {"raykd": head.get("versions", {}).get("raykd", _ABSENT)}}
        sides.append(leaves({**spec, **extra}))
    fields = dict.fromkeys(field for side in sides for field in side)
    rows = [[field, *(side.get(field, _ABSENT) for side in sides)] for field in fields]
    return [row for row in rows if len({repr(value) for value in row[1:]}) > 1]


def _budgets(spent: Sequence[float], *, round_up: bool) -> list[float]:
    """Parts of what the sweep that spent least has spent."""
    most = min(spent)
    found = [math.ceil(share * most) if round_up else share * most for share in _SHARES]
    return [budget for budget in dict.fromkeys(found) if budget > 0]


def _device(history: History) -> str:
    """GPU or CPU, what it was trained on last; "" of a ledger that is older than this."""
    return next((str(d["device"]) for d in reversed(history.drivers) if d.get("device")), "")


def _workers(history: History) -> float:
    """Devices of a lane: GPUs where there are some, else workers."""
    workers = history.spec.get("workers") or {}
    each = workers.get("gpus") if _device(history) == "GPU" else None
    return float(workers.get("count") or 1) * float(each or 1)


def _table(budgets: list[float], sides: list[list[Leader]]) -> list[list[float | None]]:
    """A row a budget: the budget, then each sweep's best setting, the mean over its seeds."""
    return [
        [budget, *(_mean(side[at]) if side[at] else None for side in sides)]
        for at, budget in enumerate(budgets)
    ]


def _mean(leader: Leader) -> float:
    return float(np.mean(list(leader.values())))


def _ahead(names: list[str], sides: list[Leader]) -> Ahead | None:
    """Which one is ahead; None while one of them has no score."""
    if not all(sides):
        return None
    first, second = sorted(range(len(names)), key=lambda at: -_mean(sides[at]))[:2]
    seeds = sorted(sides[first].keys() & sides[second].keys())
    if len(seeds) < 2:
        by = _mean(sides[first]) - _mean(sides[second])
        one = max(map(len, sides)) == 1
        said = _ONE_SEED if one else _FEW_SEEDS
        return Ahead(names[first], names[second], by, None, None, len(seeds), said)
    test = paired_t([sides[first][seed] - sides[second][seed] for seed in seeds])
    by, half = float(test.mean), float(test.half_width(_ALPHA))
    if by < 0:  # over these seeds it is the other one
        first, second, by = second, first, -by
    known = math.isfinite(half) and half > 0
    low, high = (by - half, by + half) if known else (None, None)
    said = f"over {len(seeds)} seeds, {_CHOSEN}"
    return Ahead(names[first], names[second], by, low, high, len(seeds), said)
