"""The four kinds of axis: `log`, `uniform`, `integer` and `pick`."""

from __future__ import annotations

import json
import math
from abc import abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from pydantic import Field, model_validator

from raykd.spec.axis import Axis, Domain
from trainables.core.errors import UserError

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution
    from optuna.trial import BaseTrial

_GOLDEN = 0.6180339887  # a place inside a range that is hardly ever a whole number
_SHORT = 32  # whole numbers; so many of an axis are looked at one by one


class _Range(Axis):
    """A span of real numbers."""

    logarithmic: ClassVar[bool] = False

    @property
    @abstractmethod
    def ends(self) -> tuple[float, float]:
        """(low, high), both included."""

    @property
    def domain(self) -> Domain:
        return Domain("interval", self.ends)

    def contains(self, value: Any) -> bool:
        return is_number(value) and self.ends[0] <= value <= self.ends[1]

    def extremes(self) -> list[Any]:
        low, high = self.ends
        return [low, high, low + _GOLDEN * (high - low)]

    def distribution(self) -> BaseDistribution:
        from optuna.distributions import FloatDistribution

        return FloatDistribution(*self.ends, log=self.logarithmic)

    def suggest(self, trial: BaseTrial, name: str) -> Any:
        return trial.suggest_float(name, *self.ends, log=self.logarithmic)

    def describe(self) -> str:
        return f"{type(self).__name__.lower()} {_span(self.ends)}"


class Log(_Range):
    """Real numbers, evenly by their logarithm."""

    logarithmic = True
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

    def levels(self, n: int) -> list[Any]:
        low, high = self.log
        inner = [low * (high / low) ** (i / (n - 1)) for i in range(1, n - 1)]
        return [low, *inner, high] if n > 1 else [math.sqrt(low * high)]


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

    def levels(self, n: int) -> list[Any]:
        low, high = self.uniform
        inner = [low + (high - low) * i / (n - 1) for i in range(1, n - 1)]
        return [low, *inner, high] if n > 1 else [(low + high) / 2]


class Integer(Axis):
    """Whole numbers, evenly (every `step`-th) or evenly by their logarithm (`log`)."""

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
        """The ends, the value next to the lower end, and one inside."""
        low, high = self.integer
        middle = low + round(_GOLDEN * ((high - low) // self.step)) * self.step
        return list(dict.fromkeys([low, high, low + self.step, middle]))

    def inside(self) -> list[Any]:
        """Every value of a short axis; of a long one those next to the ends and some between."""
        if (self.integer[1] - self.integer[0]) // self.step < _SHORT:
            return self.levels(_SHORT)
        low, high = self.integer
        near = [value for i in range(1, 4) for value in (low + i * self.step, high - i * self.step)]
        return [*near, *self.levels(_SHORT // 2)]

    def contains(self, value: Any) -> bool:
        low, high = self.integer
        return is_number(value) and low <= value <= high and (value - low) % self.step == 0

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
        return any(same(value, level) for level in self.pick)

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


def _check_order(kind: str, ends: Sequence[float]) -> None:
    low, high = ends
    if low >= high:
        raise UserError(kind, "an empty range", value=[low, high], expected="low < high")


def is_number(value: Any) -> bool:
    """Whether this is a finite number (True and False are none)."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def same(a: Any, b: Any) -> bool:
    """Whether two values are one: 1 and 1.0 are, 1 and true are not."""
    return bool(a == b) and isinstance(a, bool) == isinstance(b, bool)


def _is_plain(value: Any) -> bool:
    try:
        json.dumps(value, allow_nan=False)
    except (TypeError, ValueError):
        return False
    return True


def _span(ends: Sequence[float]) -> str:
    return f"[{ends[0]:g}, {ends[1]:g}]"
