"""One searchable field: what is written in a search space; what Optuna, the grid and TensorBoard need of it.

lr: {log: [1e-3, 1e-2]}
strength: {uniform: [0, 1]}
queue_size: {integer: [256, 1024], step: 256}      # or log: true
adapter: [linear, mlp]                             # short for {pick: [linear, mlp]}
hidden: {pick: [512, 2048], when: {adapter: mlp}}  # part of the search only for those adapters
"""

from __future__ import annotations

import json
import math
from abc import abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple

from pydantic import BeforeValidator, Field, SerializeAsAny, field_validator, model_validator

from trainables.core.errors import UserError
from trainables.spec.parse import as_mapping, build
from trainables.spec.trial import Spec

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution
    from optuna.trial import BaseTrial

_GOLDEN = 0.6180339887  # a place inside a range that is hardly ever a whole number
_SHORT = 32  # whole numbers; so many of an axis are looked at one by one


class Domain(NamedTuple):
    """What values an axis may have, as TensorBoard's HParams wants it declared."""

    kind: Literal["interval", "discrete"]
    values: tuple[Any, ...]  # (low, high), or every level (text where a level is no plain value)


class Axis(Spec):
    """One searchable field. `when` limits it to trials in which other axes have one of the values given."""

    when: dict[str, tuple[Any, ...]] = Field(
        {}, description="other axis -> values at which this one takes part"
    )

    @field_validator("when", mode="before")
    @classmethod
    def _lists(cls, raw: Any) -> Any:
        conditions = {
            k: tuple(v) if isinstance(v, list | tuple) else (v,) for k, v in as_mapping(raw, "").items()
        }
        for name, values in conditions.items():
            if not values:
                raise UserError(
                    name, "no value at which the axis takes part", expected="a value or a list of values"
                )
        return conditions

    @abstractmethod
    def distribution(self) -> BaseDistribution:
        """The same as an Optuna distribution."""

    @abstractmethod
    def levels(self, n: int) -> list[Any]:
        """At most `n` values spread over the axis, ends included; every level of a pick, whatever `n`."""

    @abstractmethod
    def contains(self, value: Any) -> bool:
        """Is `value` one that this axis can take?"""

    @property
    @abstractmethod
    def domain(self) -> Domain:
        """For TensorBoard."""

    @abstractmethod
    def describe(self) -> str:
        """In one line, as it would be written."""

    def extremes(self) -> list[Any]:
        """Values that show whether the field takes what this axis offers: its ends, and some inside."""
        return self.levels(2)

    def inside(self) -> list[Any]:
        """More values between the ends: a field may refuse one whose neighbours it takes."""
        return []

    def encode(self, value: Any) -> Any:
        """`value` as Optuna keeps it."""
        return value

    @abstractmethod
    def suggest(self, trial: BaseTrial, name: str) -> Any:
        """A value for this axis, asked of an Optuna trial."""


class _Range(Axis):
    """A span of real numbers."""

    @property
    @abstractmethod
    def ends(self) -> tuple[float, float]: ...

    @property
    def domain(self) -> Domain:
        return Domain("interval", self.ends)

    def contains(self, value: Any) -> bool:
        return _is_number(value) and self.ends[0] <= value <= self.ends[1]

    def extremes(self) -> list[Any]:
        low, high = self.ends
        return [low, high, low + _GOLDEN * (high - low)]


class Log(_Range):
    """Real numbers, evenly by magnitude."""

    log: tuple[float, float]

    @model_validator(mode="after")
    def _possible(self) -> Log:
        _check_order("log", self.log)
        if self.log[0] <= 0:
            raise UserError(
                "log", "a logarithmic axis cannot reach 0 or below", value=list(self.log), expected="low > 0"
            )
        return self

    @property
    def ends(self) -> tuple[float, float]:
        return self.log

    def distribution(self) -> BaseDistribution:
        from optuna.distributions import FloatDistribution

        return FloatDistribution(*self.log, log=True)

    def suggest(self, trial: BaseTrial, name: str) -> Any:
        return trial.suggest_float(name, *self.log, log=True)

    def levels(self, n: int) -> list[Any]:
        low, high = self.log
        inner = [low * (high / low) ** (i / (n - 1)) for i in range(1, n - 1)]
        return [low, *inner, high] if n > 1 else [math.sqrt(low * high)]

    def describe(self) -> str:
        return f"log {_span(self.log)}"


class Uniform(_Range):
    """Real numbers, evenly."""

    uniform: tuple[float, float]

    @model_validator(mode="after")
    def _possible(self) -> Uniform:
        _check_order("uniform", self.uniform)
        return self

    @property
    def ends(self) -> tuple[float, float]:
        return self.uniform

    def distribution(self) -> BaseDistribution:
        from optuna.distributions import FloatDistribution

        return FloatDistribution(*self.uniform)

    def suggest(self, trial: BaseTrial, name: str) -> Any:
        return trial.suggest_float(name, *self.uniform)

    def levels(self, n: int) -> list[Any]:
        low, high = self.uniform
        inner = [low + (high - low) * i / (n - 1) for i in range(1, n - 1)]
        return [low, *inner, high] if n > 1 else [(low + high) / 2]

    def describe(self) -> str:
        return f"uniform {_span(self.uniform)}"


class Integer(Axis):
    """Whole numbers, evenly (every `step`-th) or evenly by magnitude (`log`)."""

    integer: tuple[int, int]
    step: Annotated[int, Field(ge=1)] = 1
    log: bool = False

    @model_validator(mode="after")
    def _possible(self) -> Integer:
        low, high = self.integer
        _check_order("integer", self.integer)
        if self.log and low < 1:
            raise UserError(
                "integer",
                "a logarithmic axis cannot reach 0 or below",
                value=[low, high],
                expected="low >= 1",
            )
        if self.log and self.step != 1:
            raise UserError("step", "does not go with log", value=self.step, expected="one of the two")
        if (high - low) % self.step:
            near = low + (high - low) // self.step * self.step
            raise UserError(
                "integer",
                "the steps do not reach the upper end",
                value=[low, high],
                expected=f"[{low}, {near}]",
            )
        return self

    def distribution(self) -> BaseDistribution:
        from optuna.distributions import IntDistribution

        return IntDistribution(*self.integer, log=self.log, step=self.step)

    def suggest(self, trial: BaseTrial, name: str) -> Any:
        return trial.suggest_int(name, *self.integer, log=self.log, step=self.step)

    def levels(self, n: int) -> list[Any]:
        low, high = self.integer
        count = (high - low) // self.step + 1
        if count <= n:
            return list(range(low, high + 1, self.step))
        if self.log:
            return sorted({round(value) for value in Log(log=self.integer).levels(n)})
        positions = Uniform(uniform=(0, count - 1)).levels(n)
        return [low + self.step * round(position) for position in positions]

    def extremes(self) -> list[Any]:
        """The ends, the value next to the lower one (a multiple of 128 is followed by none), one inside."""
        low, high = self.integer
        middle = low + round(_GOLDEN * ((high - low) // self.step)) * self.step
        return list(dict.fromkeys([low, high, low + self.step, middle]))

    def inside(self) -> list[Any]:
        """Every value of a short axis; of a long one the first, the last and some between."""
        if (self.integer[1] - self.integer[0]) // self.step < _SHORT:
            return self.levels(_SHORT)
        low, high = self.integer
        near = [value for i in range(1, 4) for value in (low + i * self.step, high - i * self.step)]
        return [*near, *self.levels(_SHORT // 2)]

    def contains(self, value: Any) -> bool:
        low, high = self.integer
        return _is_number(value) and low <= value <= high and (value - low) % self.step == 0

    @property
    def domain(self) -> Domain:
        return Domain("interval", self.integer)

    def describe(self) -> str:
        how = " log" if self.log else f" step {self.step}" if self.step != 1 else ""
        return f"integer {_span(self.integer)}{how}"


class Pick(Axis):
    """One of a list of values."""

    pick: tuple[Any, ...]

    @model_validator(mode="after")
    def _possible(self) -> Pick:
        if not self.pick:
            raise UserError("pick", "no value to pick from", expected="at least one")
        for at, level in enumerate(self.pick):
            if not _is_plain(level):
                raise UserError(
                    f"pick.{at}", "not a value that can be picked", value=level, expected="a finite value"
                )
            # Equal for Optuna too, which takes 1, 1.0 and true for the same choice.
            if any(self.encode(level) == self.encode(other) for other in self.pick[:at]):
                raise UserError(f"pick.{at}", "stands there twice", value=level, expected="different values")
        return self

    def distribution(self) -> BaseDistribution:
        from optuna.distributions import CategoricalDistribution

        return CategoricalDistribution([self.encode(level) for level in self.pick])

    def suggest(self, trial: BaseTrial, name: str) -> Any:
        return self.decode(trial.suggest_categorical(name, [self.encode(level) for level in self.pick]))

    def levels(self, n: int) -> list[Any]:
        return list(self.pick)

    def contains(self, value: Any) -> bool:
        return any(
            value == level and isinstance(value, bool) == isinstance(level, bool) for level in self.pick
        )

    @property
    def domain(self) -> Domain:
        return Domain("discrete", tuple(self.encode(level) for level in self.pick))

    def describe(self) -> str:
        return "pick " + ", ".join(
            level if isinstance(level, str) else json.dumps(level) for level in self.pick
        )

    def encode(self, value: Any) -> Any:
        """Optuna's choices are plain values; a list or mapping is kept as its JSON text."""
        return json.dumps(value, sort_keys=True) if isinstance(value, list | tuple | dict) else value

    def decode(self, value: Any) -> Any:
        """Optuna's choice as the level that was written."""
        return next(level for level in self.pick if self.encode(level) == value)


KINDS: dict[str, type[Axis]] = {"log": Log, "uniform": Uniform, "integer": Integer, "pick": Pick}


def parse_axis(raw: Any) -> Axis:
    """An axis from what stands in the file. Paths in errors are relative to the axis."""
    if isinstance(raw, Axis):
        return raw
    if isinstance(raw, list | tuple):
        return build(Pick, {"pick": raw})
    forms = "`{log: [low, high]}`, `{uniform: [low, high]}`, `{integer: [low, high]}` or a list of values"
    if not isinstance(raw, dict):
        raise UserError(
            "", "is not an axis", value=raw, expected=forms + "; a single value belongs under `fixed`"
        )
    # An integer axis may say `log: true`, so `log` alone decides only where `integer` is absent.
    kinds = [kind for kind in KINDS if kind in raw and not (kind == "log" and "integer" in raw)]
    if not kinds:
        unknown = next((str(key) for key in raw if key not in ("when", "step")), None)
        if unknown is None:
            raise UserError("", "says no range", expected=forms)
        raise UserError(unknown, "no such kind of axis", value=unknown, choices=KINDS)
    if len(kinds) > 1:
        raise UserError("", f"is both {kinds[0]} and {kinds[1]}", expected="one of them")
    for kind in ("log", "uniform", "integer"):
        if kind in kinds:
            _check_pair(kind, raw[kind])
    return build(KINDS[kinds[0]], raw)


AnyAxis = Annotated[SerializeAsAny[Axis], BeforeValidator(parse_axis)]


def _check_pair(kind: str, value: Any) -> None:
    if not isinstance(value, list | tuple) or len(value) != 2:
        raise UserError(kind, "is not a range", value=value, expected="two numbers, [low, high]")
    for end in value:
        if not _is_number(end) or (kind == "integer" and end != int(end)):
            noun = "two whole numbers" if kind == "integer" else "two numbers"
            raise UserError(kind, "is not a range", value=value, expected=f"{noun}, [low, high]")


def _check_order(kind: str, ends: Sequence[float]) -> None:
    low, high = ends
    if low >= high:
        raise UserError(kind, "an empty range", value=[low, high], expected="low < high")


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _is_plain(value: Any) -> bool:
    try:
        json.dumps(value, allow_nan=False)
    except (TypeError, ValueError):
        return False
    return True


def _span(ends: Sequence[float]) -> str:
    return f"[{ends[0]:g}, {ends[1]:g}]"
