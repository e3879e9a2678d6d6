"""Each method's own settings as configurations of a search: what a search tries first.

A method's own settings are those that a trial has without the axes: of its preset, of `fixed` and of the
spec's sections. They are known to work, so a sampler that learns starts from something good, and the result
says whether the search has found anything better. `benchmarks/search.py` measures what it is worth.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from raykd.spec.axis import Axis
from raykd.spec.axis_kinds import Pick, same
from raykd.spec.space import METHOD, Space
from trainables.core.errors import UserError
from trainables.spec.trial import TrialSpec
from trainables.training.flat_names import flatten

Trial = Callable[[Mapping[str, Any]], TrialSpec]  # of a configuration; raises `UserError`


def preset_points(methods: Sequence[str], space: Space, trial: Trial) -> Iterator[dict[str, Any]]:
    """A configuration a method: every axis at the method's own value, if the axis can take it.

    Axes that cannot are left out, for the sampler to fill in.
    """
    several = len(methods) > 1
    for method in methods:
        point: dict[str, Any] = {METHOD: method} if several else {}
        own = _own_values(space, trial, point)
        for name, axis in space.axes.items():
            if name in own and axis.contains(own[name]) and space.active(name, point):
                point[name] = _as_written(axis, own[name])
        if point:
            yield point


def _own_values(space: Space, trial: Trial, given: Mapping[str, Any]) -> dict[str, Any]:
    """axis -> the value that a trial of the method has without this axis."""
    fields = space.fields
    try:
        flat = flatten(trial(given))
        return {name: flat[field.flat] for name, field in fields.items() if field.flat in flat}
    except UserError:  # without an axis, such as over students, there is no trial: then without one by one
        own, whole = {}, space.around(given)
        for name in whole.keys() & fields.keys():
            try:
                flat = flatten(trial({k: v for k, v in whole.items() if k != name}))
            except UserError:
                continue
            own.update({name: flat[fields[name].flat]} if fields[name].flat in flat else {})
        return own


def _as_written(axis: Axis, value: Any) -> Any:
    """A value of the axis as the axis has it: 1.0 is the level 1 of a pick."""
    return next(level for level in axis.pick if same(level, value)) if isinstance(axis, Pick) else value
