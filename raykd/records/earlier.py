"""What a sweep has from earlier ones (`warm_start`): trials that its sampler was told, points to try first.

The ledger holds a copy in a record of its own. So a resumed sweep goes on as it began, whether or not the
earlier sweeps are still there. None of these trials is one of the sweep's own.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, TypeVar

T = TypeVar("T")

# What becomes of an earlier trial, in the words of the plan.
USES = {
    "told": "told to the sampler with their scores",
    "point": "their settings are tried first",
    "spare": "not tried again",
    "outside": "outside of this space",
}


@dataclass(frozen=True)
class ToldTrial:
    """An earlier trial as the sampler is told it."""

    sweep: str
    trial: str  # 8 hex digits
    params: dict[str, Any]  # axis of this sweep -> value
    status: str  # finished | stopped | failed
    scores: dict[int, float]  # epoch -> finite score


@dataclass(frozen=True)
class Point:
    """The settings of an earlier trial whose score does not compare, to be tried among the first."""

    sweep: str
    trial: str
    params: dict[str, Any]
    score: float  # there, the mean over its seeds


@dataclass(frozen=True)
class Row:
    """So many trials of an earlier sweep are used so, for this reason."""

    sweep: str
    trials: int
    use: str  # a key of `USES`
    reason: str


@dataclass(frozen=True)
class Earlier:
    """All that a sweep has from earlier ones."""

    rows: tuple[Row, ...] = ()
    told: tuple[ToldTrial, ...] = ()
    points: tuple[Point, ...] = ()

    def record(self) -> dict[str, Any]:
        """The fields of the ledger's `warm_start` record. Keys of JSON are text, so `scores` are pairs."""
        told = [{**asdict(one), "scores": list(map(list, one.scores.items()))} for one in self.told]
        return {"rows": _plain(self.rows), "told": told, "points": _plain(self.points)}

    @classmethod
    def of(cls, record: Mapping[str, Any]) -> Earlier:
        """Of such a record, as `records.format` has checked it."""
        told = [
            {**one, "scores": {int(epoch): score for epoch, score in one["scores"]}} for one in record["told"]
        ]
        return cls(
            tuple(_made(Row, row) for row in record["rows"]),
            tuple(_made(ToldTrial, one) for one in told),
            tuple(_made(Point, point) for point in record["points"]),
        )

    def describe(self) -> str:
        """One line: `warm start from wide: 31 trials told to the sampler, 3 tried first`."""
        names = ", ".join(dict.fromkeys(row.sweep for row in self.rows))
        told = f"{len(self.told)} trial{'' if len(self.told) == 1 else 's'} told to the sampler"
        return f"warm start from {names}: {told}, settings of {len(self.points)} tried first"


def _made(kind: type[T], fields: Mapping[str, Any]) -> T:
    """Of a later raykd's record what this one knows."""
    return kind(**{name: fields[name] for name in kind.__annotations__})


def _plain(those: Iterable[Any]) -> list[dict[str, Any]]:
    return [asdict(one) for one in those]
