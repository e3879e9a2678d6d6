"""How a sweep is run: the sections of its file for workers and baseline, and durations."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, field_validator

from trainables.core.errors import UserError
from trainables.spec.parse import as_mapping
from trainables.spec.trial import Spec
from trainables.training import resolve

_UNITS = {"d": 86400, "h": 3600, "m": 60, "s": 1}
_DURATION = re.compile(r"\s*".join(rf"(?:(?P<{unit}>\d+(?:\.\d+)?)\s*{unit})?" for unit in _UNITS))


def parse_duration(raw: Any) -> Any:
    """Seconds of `2h30m`, `90s`, `1d`, or of a number of seconds. Raises `UserError` for other text."""
    if not isinstance(raw, str):
        return raw
    found = _DURATION.fullmatch(raw.strip())
    parts = {unit: number for unit, number in found.groupdict().items() if number} if found else {}
    if not parts:
        raise UserError("", "is no duration", value=raw, expected="such as 90s, 45m, 2h30m, 1d, or seconds")
    return sum(float(number) * _UNITS[unit] for unit, number in parts.items())


_BYTES = {"TB": 10**12, "GB": 10**9, "MB": 10**6, "KB": 10**3, "B": 1}
_SIZE = re.compile(rf"(\d+(?:\.\d+)?)\s*({'|'.join(_BYTES)})", re.IGNORECASE)


def parse_bytes(raw: Any) -> Any:
    """Bytes of `50GB`, `800 MB`, `1.5TB`, or of a number of bytes; other text as it is."""
    found = _SIZE.fullmatch(raw.strip()) if isinstance(raw, str) else None
    return int(float(found[1]) * _BYTES[found[2].upper()]) if found else raw


def parse_room(raw: Any) -> Any:
    """Bytes, `auto` or `off`. Raises `UserError` for other text, and where a unit is missing."""
    room = parse_bytes(raw)
    expected = "such as 50GB, 'auto' (a quarter of what is free on the disk), or 'off'"
    if isinstance(room, str) and room not in ("auto", "off"):
        raise UserError("", "is no number of bytes", value=raw, expected=expected)
    if isinstance(room, int | float) and not isinstance(room, bool) and room < _BYTES["MB"]:
        raise UserError(
            "", "is less than a megabyte: a number without a unit counts bytes", value=raw, expected=expected
        )
    return room


# The field that a section's plain value fills (`scheduler: none`, `workers: 2`), as in a trial.
SHORTHAND = {
    **resolve.SHORTHAND,
    ("scheduler",): "name",
    ("sampler",): "name",
    ("workers",): "count",
    ("baseline",): "method",
    ("targets",): "room",
    ("latency",): "device",
}

# An empty section is the empty mapping.
Section = Annotated[dict[str, Any], BeforeValidator(lambda raw: as_mapping(raw, ""))]


class WorkersSpec(Spec):
    """The processes that train one trial together."""

    count: Annotated[int, Field(ge=1)] = Field(1, description="workers of a lane")
    cpus: Annotated[float, Field(gt=0)] = Field(1.0, description="of each worker")
    gpus: Annotated[float, Field(ge=0)] | None = Field(
        None,
        description="of each worker, 1 at most; a fraction shares a GPU; left out: 1 where there are GPUs, "
        "else 0",
    )
    hang_after: Annotated[float, Field(gt=0), BeforeValidator(parse_duration)] | None = Field(
        1800.0,
        description="seconds, or such as 15m, without a step before a trial is taken to hang; null: never",
    )

    @field_validator("gpus")
    @classmethod
    def _whole_or_part(cls, gpus: float | None) -> float | None:
        if gpus is not None and gpus > 1 and gpus != int(gpus):
            raise UserError(
                "", "is neither a part of one GPU nor whole GPUs", value=gpus, expected="0.5 or 1"
            )
        return gpus

    def on(self, nodes: Iterable[Mapping[str, Any]]) -> WorkersSpec:
        """The workers with a number of GPUs. Where the spec leaves it out, it is 1 if any of these nodes (as
        `ray.nodes()` lists them) has GPUs, else 0.
        """
        if self.gpus is not None:
            return self
        found = any(node["Resources"].get("GPU", 0) >= 1 for node in nodes if node.get("Alive", True))
        return self.model_copy(update={"gpus": 1.0 if found else 0.0})

    @property
    def resources(self) -> dict[str, float]:
        """What each worker takes, as Ray counts it. Call it on the result of `on`."""
        return {"CPU": self.cpus, **({"GPU": self.gpus} if self.gpus else {})}

    def slots(self, has: Mapping[str, float]) -> int:
        """How many workers a node with these resources holds. Call it on the result of `on`.

        Workers with a part of a GPU do not spread over two devices.
        """
        slots = int(has.get("CPU", 0) / self.cpus + 1e-6)
        if not self.gpus:
            return slots
        gpus = int(has.get("GPU", 0) + 1e-6)
        held = gpus * int(1 / self.gpus + 1e-6) if self.gpus < 1 else int(gpus / self.gpus)
        return min(slots, held)

    def lanes(self, nodes: Iterable[Mapping[str, Any]]) -> int:
        """How many lanes these nodes (as `ray.nodes()` lists them) can hold if nothing else runs on them."""
        nodes = list(nodes)
        workers = self.on(nodes)
        return sum(workers.slots(node["Resources"]) for node in nodes) // self.count


class TargetsSpec(Spec):
    """What the teacher says about views: computed once on each node, and shared by all trials."""

    room: Annotated[Annotated[int, Field(ge=0)] | Literal["auto", "off"], BeforeValidator(parse_room)] = (
        Field(
            "auto",
            description="bytes of a node's cache, such as 50GB; auto: a quarter of what is free; or off",
        )
    )


class ProxySpec(Spec):
    """What is done to learn how well the score at a rung predicts a trial's end."""

    audit: Annotated[float, Field(ge=0, le=1)] = Field(
        0.0,
        description="the share of the trials that the scheduler stops which run on to their last epoch all "
        "the same, chosen by chance; sampler and scheduler learn nothing of it",
    )


class BaselineSpec(Spec):
    """The no-teacher method that the sweep is compared with, with a comparable amount of training.

    The default of `cap` is for ledgers that are older than this field; a new sweep has `sweep`.
    """

    method: str = Field("moco", description="a method without a teacher")
    preset: str | None = None
    epochs: Annotated[int, Field(ge=1)] | None = Field(
        None, description="None: as many as cost what a trial of the sweep costs"
    )
    cap: Literal["sweep", "none"] = Field(
        "none", description="sweep: at most the compute of all trials of the sweep together; none: no limit"
    )
    config: Section = Field({}, description="settings of the method")
    views: Section = Field({}, description="over those of the sweep")
    optim: Section = Field({}, description="over those of the sweep")
