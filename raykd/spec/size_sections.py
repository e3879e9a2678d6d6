"""Sections of a sweep's file about the size and the speed of its students."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from trainables.core.amounts import with_unit
from trainables.core.errors import UserError
from trainables.spec.trial import Spec, TrialSpec, digest


class LatencySpec(Spec):
    """How the time of a student's forward pass is measured, once for each student."""

    device: Literal["cpu", "gpu"] = Field("cpu", description="cpu, or gpu: the one of a lane's first worker")
    batch: Annotated[int, Field(ge=1, le=4096)] = Field(1, description="images that are passed together")
    threads: Annotated[int, Field(ge=1, le=1024)] = Field(1, description="CPU threads that compute")


_COUNTS = {"": 1, "k": 10**3, "M": 10**6, "G": 10**9}
_TIMES = {"": 1.0, "us": 1e-3, "µs": 1e-3, "ms": 1.0, "s": 1e3}  # in milliseconds
_AMOUNT = re.compile(r"(\d+(?:\.\d+)?(?:e\d+)?)\s*([^\W\d]*)")
_LEAST = 1000  # of a count; less is a unit left out


def parse_count(raw: Any) -> Any:
    """The number that `5M`, `300M`, `1.2G`, `800k` or a number says. Raises `UserError` for other text."""
    if isinstance(raw, bool) or not isinstance(raw, str | int | float):
        return raw
    expected = "such as 5M (millions) or 1.2G (thousand millions)"
    value = _amount(raw, _COUNTS, expected, {"m": "M", "g": "G", "K": "k", "B": "G", "b": "G", "T": "G"})
    if value < _LEAST:
        problem = "is less than 1,000: a number without a unit counts single ones"
        raise UserError("", problem, value=raw, expected=expected)
    return round(value)


def parse_milliseconds(raw: Any) -> Any:
    """Milliseconds of `20ms`, `0.5s`, `800us`, or of a number of them. Raises `UserError` for other text."""
    if isinstance(raw, bool) or not isinstance(raw, str | int | float):
        return raw
    return _amount(raw, _TIMES, "such as 20ms, or milliseconds", {"m": "ms", "MS": "ms", "sec": "s"})


def _amount(raw: str | float, units: Mapping[str, float], expected: str, meant: Mapping[str, str]) -> float:
    """The value of `raw` with one of `units`; `meant` says what another word was meant to be."""
    found = _AMOUNT.fullmatch(str(raw).strip().replace("_", "").replace(",", ""))
    if found is None:
        raise UserError("", "is no amount", value=raw, expected=expected)
    number, unit = found.groups()
    if unit not in units:
        known = next((right for wrong, right in meant.items() if unit in (wrong, f"{wrong}B")), None)
        if known is None and unit[:1] in units and unit[1:] in ("B", "b"):
            known = unit[:1]
        problem = "counts bytes" if unit[-1:] == "B" and len(unit) == 2 else f"has an unknown unit {unit!r}"
        error = UserError("", problem, value=raw, expected=expected)
        raise error.with_hint(f"Did you mean {number}{known}?") if known else error
    return float(number) * units[unit]


Count = Annotated[int, Field(gt=0), BeforeValidator(parse_count)]


class LimitsSpec(Spec):
    """What a student may have at most. A configuration beyond is refused before it trains."""

    params: Count | None = Field(None, description="parameters of the exported student, such as 5M")
    macs: Count | None = Field(None, description="multiply-adds of one image, such as 300M")
    latency: Annotated[float, Field(gt=0), BeforeValidator(parse_milliseconds)] | None = Field(
        None, description="of a forward pass as `latency` says, such as 20ms; a plain number: milliseconds"
    )

    def over(self, size: Mapping[str, float]) -> dict[str, float]:
        """By which share this size is above each limit that it exceeds: .5 is half as much again."""
        found = {name: size[name] / limit - 1 for name, limit in self.set.items() if name in size}
        return {name: excess for name, excess in found.items() if excess > 0}

    def said(self, name: str, value: float) -> str:
        """Why a student with this value is refused."""
        limit = getattr(self, name)
        return (
            f"its {name} of {with_unit(name, value)} are over `limits: {{{name}: {with_unit(name, limit)}}}`"
        )

    @property
    def set(self) -> dict[str, float]:
        """The limits that there are."""
        return {name: limit for name, limit in self if limit is not None}


def student_key(trial: TrialSpec) -> str:
    """8 hex digits of what sets the size of a trial's student: architecture, options, image size."""
    model = trial.student.model.model_dump(mode="json")
    return digest({**model, "image_size": trial.data.image_size})


def student_label(trial: TrialSpec) -> str:
    """The architecture with its options, for people."""
    options = ", ".join(f"{name} {value}" for name, value in trial.student.options.items())
    return trial.student.arch + (f" ({options})" if options else "")
