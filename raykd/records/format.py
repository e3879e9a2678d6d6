"""The fields and types of a ledger's records, and what happens to those of another version of raykd.

`FORMAT` is in the first record and in that of every driver's start. It becomes larger when an older raykd
would misread what is new. The first ledgers do not have it: theirs is format 1. So:

- a ledger of a larger format is refused, and the message names the raykd that wrote it;
- an unknown kind or field in a known format stays in the file and is ignored;
- a known kind that lacks a field, or has another type in it, is refused.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Annotated, Any, Literal, TypeVar

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError
from typing_extensions import NotRequired, TypedDict

from raykd.process.version import version
from trainables.core.errors import UserError

FORMAT = 1

Record = dict[str, Any]  # "kind", "time" (unix seconds), and the fields of its kind
R = TypeVar("R")

_Count = Annotated[int, Field(ge=0, lt=2**63)]
_Metrics = dict[str, float]
_STRICT = ConfigDict(strict=True)


class _Spec(TypedDict):
    """The fields of a spec that are read without its model."""

    name: str
    samples: _Count
    seeds: list[int]


class _Source(TypedDict):
    path: str
    overrides: list[str]
    folder: NotRequired[str]


class _Plugin(TypedDict):
    """A module of the user's own: the hash of its code, where it lay, and its files with their hashes."""

    code: str
    file: str
    files: dict[str, str]


class _Config(TypedDict, total=False):
    """The fields of a trial's settings that are read without their model."""

    method: str
    epochs: _Count


class _Any(TypedDict):
    """The fields of every record."""

    kind: str
    time: Annotated[float, Field(ge=0, lt=1e11, allow_inf_nan=False)]


class _Sweep(_Any):
    spec: _Spec
    spec_hash: NotRequired[str]
    source: NotRequired[_Source | None]
    sampler: NotRequired[dict[str, Any]]
    scheduler: NotRequired[dict[str, Any]]
    versions: NotRequired[dict[str, str]]
    plugins: NotRequired[dict[str, _Plugin]]


class _ToldTrial(TypedDict):
    sweep: str
    trial: str
    params: dict[str, Any]
    status: Literal["finished", "stopped", "failed"]
    scores: list[Annotated[list[float], Field(min_length=2, max_length=2)]]  # [epoch, score]


class _Point(TypedDict):
    sweep: str
    trial: str
    params: dict[str, Any]
    score: float


class _Row(TypedDict):
    sweep: str
    trials: _Count
    use: str
    reason: str


class _WarmStart(_Any):
    rows: list[_Row]
    told: list[_ToldTrial]
    points: list[_Point]


class _Driver(_Any):
    event: str
    host: str
    pid: int
    versions: NotRequired[dict[str, str]]


class _Repair(_Any):
    lines: list[int]
    remade: list[str]
    again: list[str]
    aside: list[str]
    students: list[str]
    retried: NotRequired[list[str]]


class _Extend(_Any):
    samples: _Count


class _Reference(_Any):
    name: str
    label: str
    metrics: _Metrics
    trial: dict[str, Any] | str | None


class _Measured(_Any):
    name: str
    epoch: _Count
    metrics: _Metrics


class _Latency(_Any):
    student: str
    label: str
    metrics: _Metrics
    where: str


class _Spent(_Any):
    lane_s: Annotated[float, Field(ge=0, allow_inf_nan=False)]


class _Suggest(_Any):
    trial: str
    number: _Count
    arm: str
    replicate: _Count
    params: dict[str, Any]
    config: _Config
    origin: str
    attrs: dict[str, Any]
    student: NotRequired[str]
    size: NotRequired[dict[str, _Count]]


class _Repeat(_Any):
    number: _Count
    params: dict[str, Any]
    trial: str | None
    reason: str | None
    attrs: dict[str, Any]
    over: NotRequired[_Metrics]
    size: NotRequired[_Metrics]
    name: NotRequired[str]


class _Start(_Any):
    trial: str
    attempt: _Count
    lane: str | None


class _Report(_Any):
    trial: str
    epoch: _Count
    metrics: _Metrics


class _Verdict(_Any):
    trial: str
    epoch: _Count
    verdict: Literal["go", "stop"]
    audit: NotRequired[bool]


class _End(_Any):
    trial: str
    status: Literal["finished", "stopped", "failed"]
    reason: str | None
    audited: NotRequired[_Count]


class _Evaluated(_Any):
    who: Literal["student", "start", "teacher", "baseline"]
    network: str
    trial: str | None
    row: str
    seed: int | None
    suite: str
    suite_hash: str
    task: str
    key: str
    asked: dict[str, Any]
    split: str
    suite_seed: int
    place: _Count
    metrics: _Metrics
    folder: str
    reason: str | None


class _Retry(_Any):
    trials: list[str]


class _Quarantine(_Any):
    gpu: str
    reason: str


_MODELS: dict[str, type[Any]] = {
    "sweep": _Sweep, "driver": _Driver, "repair": _Repair, "extend": _Extend, "reference": _Reference,
    "measured": _Measured, "suggest": _Suggest, "repeat": _Repeat, "exhausted": _Any, "start": _Start,
    "report": _Report, "verdict": _Verdict, "end": _End, "quarantine": _Quarantine,
    "retry": _Retry, "warm_start": _WarmStart, "evaluated": _Evaluated, "latency": _Latency,
    "spent": _Spent,
}  # fmt: skip


def checked(records: Sequence[R]) -> Sequence[R]:
    """The same records; `UserError` if this raykd does not understand one. None is a damaged line."""
    writer = ""
    for number, record in enumerate(records, start=1):
        if record is None:
            continue
        if isinstance(record, dict) and isinstance(record.get("versions"), dict):
            writer = str(record["versions"].get("raykd", writer))
        problem = _problem(record)
        if problem:
            raise UserError(
                "ledger",
                f"record {number} cannot be read: {problem}; it was {written_by(writer)}",
                expected=f"raykd {writer}, or a later one" if writer else "the raykd that wrote it",
            )
    return records


def written_by(writer: str) -> str:
    """Which raykd wrote a ledger, and which one this is, for a message."""
    return f"written by {f'raykd {writer}' if writer else 'an unknown raykd'}, this is raykd {version()}"


def _problem(record: Any) -> str:
    """Why this raykd cannot read a record; "" if it can."""
    kind = record.get("kind") if isinstance(record, dict) else None
    if not isinstance(kind, str):
        return "is no record of a sweep"
    form = record.get("format", FORMAT)
    if not isinstance(form, int) or isinstance(form, bool) or form > FORMAT:
        return f"the ledger has format {form!r}, and this raykd reads formats up to {FORMAT}"
    try:
        _adapter(kind if kind in _MODELS else "").validate_python(record)
    except ValidationError as error:
        found = error.errors(include_url=False, include_input=False)[0]
        at = ".".join(str(part) for part in found["loc"])
        lacks = found["type"] == "missing"
        said = (
            "is missing"
            if lacks
            else f"is not as it should be ({found['msg'][:1].lower()}{found['msg'][1:]})"
        )
        return f"in a {kind[:40]!r} record `{at[:80]}` {said}"
    return ""


@cache
def _adapter(kind: str) -> TypeAdapter[Any]:
    return TypeAdapter(_with_config(_MODELS.get(kind, _Any)))


def _with_config(model: type[Any]) -> type[Any]:
    model.__pydantic_config__ = _STRICT
    return model
