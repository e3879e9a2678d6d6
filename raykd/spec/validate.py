"""The checks of a search before Ray starts.

First names and ranges are checked against the methods' fields. Then configurations at the ends of the axes
and between them are resolved and checked like trials: each such value of each axis once, and many
combinations, because some settings fail only together (a queue size with a batch size, an adapter with a
student).
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any

from raykd.spec.axis import Axis
from raykd.spec.axis_kinds import Integer, Log, Pick, Uniform
from raykd.spec.devices import check_gpus
from raykd.spec.feasible import workable
from raykd.spec.samplers import Grid
from raykd.spec.search import SearchSpec
from raykd.spec.sections import WorkersSpec
from raykd.spec.student_sizes import StudentSizes
from raykd.spec.suite_check import check_evaluate
from raykd.spec.tracking import check_installed
from trainables.core.errors import UserError
from trainables.evaluation.probes import find_probe
from trainables.spec.trial import TrialSpec

if TYPE_CHECKING:
    from trainables.planning.check import TrialChecker

COMBINATIONS = 400  # the most that are checked; of a larger space a seeded random sample


def validate(spec: SearchSpec, memory: int | None = None) -> list[str]:
    """Raise `UserError` if the search cannot work. Returns remarks on what can run but may not be intended.

    `memory` is that of each worker, bytes, where it is known.
    """
    from trainables.planning.check import TrialChecker

    check_gpus(spec.workers)
    check_installed(spec.track)
    checker = TrialChecker(spec.workers.count, memory)
    checked: set[str] = set()
    told_of: dict[str, str] = {}  # subject of a remark -> the remark on the first such configuration
    bases: dict[str, TrialSpec] = {}
    sizes = StudentSizes(spec)
    for params, varied in _configurations(spec):
        try:
            trial = spec.trial(params, spec.seeds[0])
            if trial.signature() not in checked:
                checker.check(trial)
            sizes.add(trial)
        except UserError as error:
            if sizes.unfit(params, varied):
                continue
            told = _told(spec, error, params, varied)
            named = told.field.removeprefix("axes.")
            at = named if named in params else varied
            raise (_told_of_axis(spec, checker, told, params, at) if at else told) from None
        checked.add(trial.signature())
        for about, remark in checker.remarks(trial).items():
            told_of.setdefault(about, remark)
        bases.setdefault(trial.method, trial)
    if spec.baseline is not None:
        checker.check_section(spec.baseline_trial(), "baseline")
    sizes.check_limits()
    check_evaluate(spec)
    _check_samples(spec)
    same = {method: checker.same_choices(trial) for method, trial in bases.items()}
    return [*_same_levels(spec, same), *told_of.values(), *sizes.remarks(), *_remarks(spec)]


def check_resources(workers: WorkersSpec, nodes: Sequence[Mapping[str, Any]]) -> None:
    """Raise `UserError` if these nodes (as `ray.nodes()` lists them) can never hold one lane."""
    left_out, workers = workers.gpus is None, workers.on(nodes)
    alive = [node["Resources"] for node in nodes if node["Alive"]]
    slots = [workers.slots(has) for has in alive]
    if sum(slots) >= workers.count:
        return
    each = f"{workers.cpus:g} CPUs" + (f" and {workers.gpus:g} GPUs" if workers.gpus else "")
    each += " (workers.gpus is left out)" if left_out and workers.gpus else ""
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


def describe_axes(spec: SearchSpec) -> list[tuple[str, str, str]]:
    """(name, range, what it is and when it takes part) of every axis, in the order of drawing."""
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


def _configurations(spec: SearchSpec) -> Iterator[tuple[dict[str, Any], str | None]]:
    """(configuration, the axis that it tests or None): each axis's values, the points, then combinations."""
    space = spec.space
    for name, axis in space.axes.items():
        for value in _values(spec, axis):
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
    together = space.grid(spec.sampler.levels) if isinstance(spec.sampler, Grid) else space.corners()
    corners = list(islice(together, COMBINATIONS + 1))
    if len(corners) > COMBINATIONS:
        rng = random.Random(0)
        corners = [space.corner(rng) for _ in range(COMBINATIONS)]
    for corner in corners:
        yield corner, None


def _values(spec: SearchSpec, axis: Axis) -> list[Any]:
    """The values of an axis that are checked one by one; for a grid those that it visits."""
    if isinstance(spec.sampler, Grid):
        return axis.levels(spec.sampler.levels)
    return [*axis.extremes(), *axis.inside()]


def _told_of_axis(
    spec: SearchSpec, checker: TrialChecker, told: UserError, params: Mapping[str, Any], name: str
) -> UserError:
    """`told` with the values that work, where a value of an axis of numbers fails and others do not."""
    axis = spec.space.axes[name]
    if isinstance(axis, Log | Uniform) and params[name] != int(params[name]):
        whole = (math.ceil(axis.ends[0]), math.floor(axis.ends[1]))
        if whole[0] >= whole[1] or "whole number" not in (told.expected or ""):
            return told
        axis = Integer(integer=whole, log=isinstance(axis, Log))
        told = UserError(f"axes.{name}", "this axis gives fractions, and the field takes whole numbers")
    if not isinstance(axis, Integer):
        return told

    def works(value: int) -> bool:
        try:
            checker.check(spec.trial(spec.space.around({name: value}), spec.seeds[0]))
            return True
        except UserError:
            return False

    better = workable(axis, works)
    if better is None:
        return told
    if told.field != f"axes.{name}":  # which does not say at which value of this axis
        told = UserError(f"axes.{name}", f"{params[name]} cannot be trained: {told}")
    return told.with_hint(f"Of this axis these values can be trained: `{name}: {better}`")


def _told(spec: SearchSpec, error: UserError, params: Mapping[str, Any], varied: str | None) -> UserError:
    """The error at the user's key; with the other choices if the combination may be the cause."""
    placed = spec.placed(error, params)
    alone = placed.field == f"axes.{varied}" if varied else False
    if alone or len(params) < 2 or not (varied is None or placed.field.startswith("axes.")):
        return placed
    choices = [name for name in params if isinstance(spec.space.axes[name], Pick | Integer)]
    rest = ", ".join(f"{name}={params[name]}" for name in choices if placed.field != f"axes.{name}")
    return placed.with_hint(f"This is with {rest}") if rest else placed


def _check_samples(spec: SearchSpec) -> None:
    """Raise `UserError` for a grid with fewer samples than configurations."""
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
    spec: SearchSpec, same: Mapping[str, Mapping[str, tuple[tuple[str, ...], ...]]]
) -> Iterator[str]:
    """Remarks on picks that offer one function under two names. `same` is method -> field -> such groups."""
    for name, axis in spec.axes.items():
        field = spec.space.fields[name]
        for method in sorted(field.methods) if isinstance(axis, Pick) else ():
            for group in same.get(method, {}).get(field.flat, ()):
                offered = [level for level in group if axis.contains(level)]
                if len(offered) > 1:
                    yield f"axes.{name}: {' and '.join(offered)} are one function here; one is enough"


def _remarks(spec: SearchSpec) -> Iterator[str]:
    """Remarks on a search without axes, on scores that teach nobody, on rankme and on a missing baseline."""
    if not spec.axes and len(spec.methods) == 1 and spec.samples > 1:
        yield f"axes: there is nothing to search; all {spec.samples} samples are one configuration"
    if spec.warm_start and spec.sampler.name == "random":
        yield "warm_start: `sampler: random` learns from no score; only points of earlier sweeps are tried"
    score = find_probe(spec.probe.get("score"))
    if score is not None and not score.comparable:
        yield f"probe.score: {score.name} ranks trials of one method; nothing else is put beside them"
        if len(spec.methods) > 1:
            yield f"probe.score: by {score.name} {' and '.join(spec.methods)} cannot be compared"
    elif "baseline" in spec.references and spec.baseline is None:
        yield "references: without `baseline: {method: moco}` there is no no-teacher row"
