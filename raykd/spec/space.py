"""The axes of a sweep together: the order in which they are drawn, and which of them a configuration has.

An axis takes part in a configuration if the method has its field and if its `when` holds. A configuration,
`params`, holds the values of the axes that take part, and no others.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from random import Random
from typing import TYPE_CHECKING, Any

from raykd.spec.arms import ARM
from raykd.spec.axis import Axis
from raykd.spec.axis_kinds import Integer, Pick, same
from trainables.core.errors import UserError
from trainables.spec.trial import NOT_IDENTITY
from trainables.training.flat_names import FlatField, find_field

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution
    from optuna.trial import BaseTrial

METHOD = "method"  # the axis over methods, of a sweep with more than one

_REFUSED = {
    "epochs": "it is the budget that trials are judged by",
    "seed": "it is no setting; write `seeds: [0, 1, 2]` to train each configuration once per seed",
    METHOD: "write `method: [retro, moco]` at the top level",
    "data.name": "scores on different data do not compare",
    "data.validation": "scores on different images do not compare",
    "data.classes": "scores on different images do not compare",
    "data.splits": "scores on different images do not compare",
    "data.split_seed": "scores on different images do not compare",
    **{
        f"{section}.{name}": "it says where files lie, and changes no result"
        for section, names in NOT_IDENTITY.items()
        for name in names
    },
    **{
        f"probe.{name}": "scores measured in different ways do not compare"
        for name in ("score", "record", "every", "draws", "max_images")
    },
}


@dataclass(frozen=True)
class Space:
    """Axes in an order in which each comes after those that it depends on."""

    axes: Mapping[str, Axis]
    fields: Mapping[str, FlatField]  # axis -> the field it sets; the axis over methods has none
    # axis -> other axis -> values at which it takes part
    conditions: Mapping[str, Mapping[str, tuple[Any, ...]]]

    def active(self, name: str, params: Mapping[str, Any]) -> bool:
        """Whether axis `name` takes part in a configuration whose earlier axes are `params`."""
        return all(
            other in params and any(same(params[other], value) for value in values)
            for other, values in self.conditions[name].items()
        )

    def suggest(self, trial: BaseTrial) -> dict[str, Any]:
        """Ask an Optuna trial for a configuration."""
        return self._walk(lambda name: self.axes[name].suggest(trial, name))

    def encode(self, params: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, BaseDistribution]]:
        """A configuration as Optuna stores it: values and distributions."""
        values = {name: self.axes[name].encode(value) for name, value in params.items()}
        return values, {name: self._distributions[name] for name in params}

    @cached_property
    def _distributions(self) -> dict[str, BaseDistribution]:
        return {name: axis.distribution() for name, axis in self.axes.items()}

    def grid(self, levels: int) -> Iterator[dict[str, Any]]:
        """Every configuration, with at most `levels` values of an axis that is no pick; last axis fastest."""
        return self._product(lambda axis: axis.levels(levels), list(self.axes), {})

    def corners(self) -> Iterator[dict[str, Any]]:
        """Every combination of the axes' extremes. All of them must work if the space is to work."""
        return self._product(lambda axis: axis.extremes(), list(self.axes), {})

    def with_parents(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """`given`, and the values of other axes that those in `given` need to take part."""
        wanted = dict(given)
        for name in reversed(list(self.axes)):
            if name in wanted:
                for other, values in self.conditions[name].items():
                    wanted.setdefault(other, values[0])
        return wanted

    def around(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """A configuration with the values in `given` and those that they need, the rest at a first level."""
        wanted = self.with_parents(given)
        return self._walk(lambda name: wanted[name] if name in wanted else self.axes[name].extremes()[0])

    def corner(self, rng: Random) -> dict[str, Any]:
        """One random combination of the axes' extremes."""
        return self._walk(lambda name: rng.choice(self.axes[name].extremes()))

    def _walk(self, choose: Callable[[str], Any]) -> dict[str, Any]:
        """A configuration with the value that `choose` gives each axis that takes part."""
        params: dict[str, Any] = {}
        for name in self.axes:
            if self.active(name, params):
                params[name] = choose(name)
        return params

    def _product(
        self, values: Callable[[Axis], list[Any]], names: Sequence[str], params: dict[str, Any]
    ) -> Iterator[dict[str, Any]]:
        """Every completion of `params` by the `values` of the axes in `names`."""
        if not names:
            yield params
        elif not self.active(names[0], params):
            yield from self._product(values, names[1:], params)
        else:
            for value in values(self.axes[names[0]]):
                yield from self._product(values, names[1:], {**params, names[0]: value})


def build_space(methods: Sequence[str], axes: Mapping[str, Axis]) -> Space:
    """The space of `axes` over `methods`. Raises `UserError` for an axis that cannot be one."""
    fields = {name: searchable(name, methods, f"axes.{name}") for name in axes}
    _refuse_trained_before(fields)
    _refuse_overlap(fields)
    all_axes = {METHOD: Pick(pick=tuple(methods)), **axes} if len(methods) > 1 else dict(axes)
    conditions: dict[str, dict[str, tuple[Any, ...]]] = {}
    for name, axis in all_axes.items():
        conditions[name] = _conditions(name, axis, all_axes)
        field = fields.get(name)
        if field is not None and field.methods != frozenset(methods):
            having = tuple(m for m in methods if m in field.methods)
            wanted = conditions[name].get(METHOD, having)
            both = tuple(m for m in having if m in wanted)
            if not both:
                problem = f"can never hold: only {', '.join(having)} has this field"
                raise UserError(f"axes.{name}.when.method", problem, value=list(wanted), choices=having)
            conditions[name][METHOD] = both
    ordered = {name: all_axes[name] for name in _order(conditions)}
    return Space(ordered, fields, conditions)


def arm_space(labels: Sequence[str]) -> Space:
    """The space of a study: one axis, which sets no field."""
    return Space({ARM: Pick(pick=tuple(labels))}, {}, {ARM: {}})


def searchable(name: str, methods: Sequence[str], where: str) -> FlatField:
    """The field of that name. Raises `UserError` at `where` if it may not differ between compared trials."""
    field = find_field(name, methods, where)
    if field.flat in _REFUSED:
        raise UserError(where, f"cannot be searched: {_REFUSED[field.flat]}")
    return field


def _refuse_trained_before(fields: Mapping[str, FlatField]) -> None:
    """Raise `UserError` for an axis of the training that a student has had before."""
    for name, field in fields.items():
        if field.path[:2] == ("student", "train"):
            problem = "cannot be searched: the student is trained once, before the trials"
            raise UserError(f"axes.{name}", problem, expected="a study, whose arms may differ in it")


def _refuse_overlap(fields: Mapping[str, FlatField]) -> None:
    """Raise `UserError` where two axes set one field of one method."""
    seen: dict[tuple[tuple[str, ...], str], str] = {}
    for name, field in fields.items():
        for method in sorted(field.methods):
            other = seen.setdefault((field.path, method), name)
            if other != name:
                raise UserError(f"axes.{name}", f"is the same field of method {method!r} as axes.{other}")


def _conditions(name: str, axis: Axis, axes: Mapping[str, Axis]) -> dict[str, tuple[Any, ...]]:
    """The `when` of an axis. Raises `UserError` where it can never hold."""
    for other, values in axis.when.items():
        where = f"axes.{name}.when.{other}"
        if other not in axes:
            raise UserError(where, "no such axis", value=other, choices=axes)
        target = axes[other]
        if not isinstance(target, Pick | Integer):
            raise UserError(where, "is a range, which no value will hit", expected="an axis that picks")
        for value in values:
            if not target.contains(value):
                problem, expected = "a value that the axis cannot take", target.describe()
                raise UserError(where, problem, value=value, expected=expected)
    return dict(axis.when)


def _order(conditions: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Axes as written, each after those that it depends on. Raises `UserError` for a circle."""
    ordered: list[str] = []
    left = sorted(conditions, key=lambda name: name != METHOD)
    while left:
        ready = next((name for name in left if all(other in ordered for other in conditions[name])), None)
        if ready is None:
            raise UserError(f"axes.{left[0]}.when", f"a circle of conditions: {', '.join(left)}")
        ordered.append(ready)
        left.remove(ready)
    return ordered
