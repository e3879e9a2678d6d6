"""What every axis of a search space can do. Its four kinds are in `axis_kinds.py`."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from pydantic import Field, field_validator

from trainables.core.errors import UserError
from trainables.spec.parse import as_mapping
from trainables.spec.trial import Spec

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution
    from optuna.trial import BaseTrial


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
        """The axis as an Optuna distribution."""

    @abstractmethod
    def levels(self, n: int) -> list[Any]:
        """At most `n` values spread over the axis, ends included; every level of a pick, whatever `n`."""

    @abstractmethod
    def contains(self, value: Any) -> bool:
        """Whether this axis can have this value."""

    @property
    @abstractmethod
    def domain(self) -> Domain:
        """The axis as TensorBoard's HParams declares it."""

    @abstractmethod
    def describe(self) -> str:
        """The axis in one line, much as a search space has it: `log [0.001, 0.01]`."""

    def extremes(self) -> list[Any]:
        """Values with which `validate` checks whether the field takes this axis: the ends and some inside."""
        return self.levels(2)

    def inside(self) -> list[Any]:
        """More values to check, between the ends: a field may refuse a value and take its neighbours."""
        return []

    def encode(self, value: Any) -> Any:
        """`value` as Optuna stores it."""
        return value

    @abstractmethod
    def suggest(self, trial: BaseTrial, name: str) -> Any:
        """A value for this axis, asked of an Optuna trial."""
