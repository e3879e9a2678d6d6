"""Everything that can be known about a sweep before Ray starts and machine time is spent.

Names and ranges are checked against the methods' fields; then configurations at the ends of the axes are
resolved and checked like trials: each end of each axis once, and many combinations of them, because some
settings fail only together (a queue size with a batch size, an adapter with a student).
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

from raykd.spec.axis import Integer, Pick
from raykd.spec.samplers import Grid
from raykd.spec.sections import WorkersSpec
from raykd.spec.sweep import SweepSpec
from trainables.errors import UserError
from trainables.parse import within
from trainables.trial import RANKME, TrialSpec

COMBINATIONS = 400  # at most so many are checked; of a larger space a seeded draw


def validate(spec: SweepSpec) -> list[str]:
    """Raise `UserError` if the sweep cannot work. Returns remarks: what can be run but may not be meant."""
    from trainables.check import TrialChecker
    from trainables.teacher_pixels import remark

    checker = TrialChecker(spec.workers.count)
    checked: set[str] = set()
    bases: dict[str, TrialSpec] = {}
    fed: dict[str, None] = {}  # what there is to say of teachers' pixels, once each
    for params, varied in _configurations(spec):
        try:
            trial = spec.trial(params, spec.seeds[0])
            if trial.signature() not in checked:
                checker.check(trial)
        except UserError as error:
            raise _told(spec, error, params, varied) from None
        if trial.teacher is not None and trial.signature() not in checked:
            fed[remark(trial.teacher)] = None
        checked.add(trial.signature())
        bases.setdefault(trial.method, trial)
    if spec.baseline is not None:
        baseline = spec.baseline_trial()
        try:
            checker.check(baseline)
        except UserError as error:
            raise within("baseline", error) from None
    _check_samples(spec)
    same = {method: checker.same_choices(trial) for method, trial in bases.items()}
    return [*filter(None, fed), *_same_levels(spec, same), *_remarks(spec)]


def check_resources(workers: WorkersSpec, nodes: Sequence[Mapping[str, Any]]) -> None:
    """Raise `UserError` if these nodes (as `ray.nodes()` lists them) can never hold one lane."""
    alive = [node["Resources"] for node in nodes if node["Alive"]]
    slots = [workers.slots(has) for has in alive]
    if sum(slots) >= workers.count:
        return
    each = f"{workers.cpus:g} CPUs" + (f" and {workers.gpus:g} GPUs" if workers.gpus else "")
    has = ", ".join(f"{r.get('CPU', 0):g} CPUs and {r.get('GPU', 0):g} GPUs" for r in alive) or "nothing"
    field = "count"
    if not any(slots):
        field = "gpus" if workers.gpus and not any(r.get("GPU", 0) for r in alive) else "cpus"
        problem = f"no node can hold a worker of {each}: the nodes have {has}"
    else:
        problem = f"{workers.count} workers of {each} do not fit: the nodes have {has}, room for {sum(slots)}"
    raise UserError(
        f"workers.{field}", problem, value=getattr(workers, field), expected="what the cluster can give"
    )


def describe_axes(spec: SweepSpec) -> list[tuple[str, str, str]]:
    """(name, range, what it is and when it takes part) of every axis, in the order they are drawn in."""
    rows = []
    for name, axis in spec.space.axes.items():
        field = spec.space.fields.get(name)
        about = field.description if field else "which recipe"
        when = " and ".join(
            f"{other} is {' or '.join(map(str, values))}"
            for other, values in spec.space.conditions[name].items()
        )
        rows.append((name, axis.describe(), f"{about} (when {when})" if when else about))
    return rows


def _configurations(spec: SweepSpec) -> Iterator[tuple[dict[str, Any], str | None]]:
    """(configuration, axis whose end it is for): the ends of each axis, the points, then combinations."""
    space = spec.space
    for name, axis in space.axes.items():
        for value in axis.extremes():
            yield space.around({name: value}), name
    yield space.around({}), ""
    for at, point in enumerate(spec.points):
        params = space.around(point)
        for name in point:
            if name not in params:
                problem = "takes no part in this configuration"
                conditions = ", ".join(space.conditions[name])
                raise UserError(f"points.{at}.{name}", problem, expected=f"other values of {conditions}")
        yield params, None
    corners = list(islice(space.corners(), COMBINATIONS + 1))
    if len(corners) > COMBINATIONS:
        rng = random.Random(0)
        corners = [space.corner(rng) for _ in range(COMBINATIONS)]
    for corner in corners:
        yield corner, None


def _told(spec: SweepSpec, error: UserError, params: Mapping[str, Any], varied: str | None) -> UserError:
    """The error where the user wrote the field; where it may lie in how choices combine, with the others."""
    placed = spec.placed(error, params)
    alone = placed.field == f"axes.{varied}" if varied else False
    if alone or len(params) < 2 or not (varied is None or placed.field.startswith("axes.")):
        return placed
    choices = [name for name in params if isinstance(spec.space.axes[name], Pick | Integer)]
    rest = ", ".join(f"{name}={params[name]}" for name in choices if placed.field != f"axes.{name}")
    message = str(placed).removeprefix(f"{placed.field}: ")
    return UserError(placed.field, f"{message} This is with {rest}" if rest else message)


def _check_samples(spec: SweepSpec) -> None:
    if not isinstance(spec.sampler, Grid):
        return
    count = sum(1 for _ in spec.space.grid(spec.sampler.levels))
    if spec.samples < count:
        raise UserError(
            "samples",
            f"fewer than the {count} configurations of the grid",
            value=spec.samples,
            expected="no `samples` for a grid, fewer `sampler.levels`, or another sampler",
        )


def _same_levels(
    spec: SweepSpec, same: Mapping[str, Mapping[str, tuple[tuple[str, ...], ...]]]
) -> Iterator[str]:
    """Remarks on picks that offer one function under two names. `same`: method -> field -> such groups."""
    for name, axis in spec.axes.items():
        field = spec.space.fields[name]
        for method in sorted(field.methods) if isinstance(axis, Pick) else ():
            for group in same.get(method, {}).get(field.flat, ()):
                offered = [level for level in group if axis.contains(level)]
                if len(offered) > 1:
                    yield f"axes.{name}: {' and '.join(offered)} are one function here; one is enough"


def _remarks(spec: SweepSpec) -> Iterator[str]:
    if not spec.axes and len(spec.methods) == 1 and spec.samples > 1:
        yield f"axes: there is nothing to search; all {spec.samples} samples are one configuration"
    if spec.probe.get("score") == RANKME:
        yield "probe.score: rankme ranks trials of one method; nothing else is put beside them"
        if len(spec.methods) > 1:
            yield f"probe.score: by rankme {' and '.join(spec.methods)} cannot be compared"
    elif "baseline" in spec.references and spec.baseline is None:
        yield "references: without `baseline: {method: moco}` there is no no-teacher row"
