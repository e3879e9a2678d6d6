"""What a search takes over from earlier sweeps: which trials its sampler is told, and which it tries.

A trial is told with its scores only if this sweep would train the very same one: if the configuration that
its settings are here, with its seed, has its signature. Then data, split, probe, budget, teacher and code
agree. Else its score says nothing here, and its settings can be a point at most. A trial with a setting that
no configuration of this space has is left out.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, zip_longest
from typing import Any

from raykd.records.earlier import Earlier, Point, Row, ToldTrial
from raykd.records.history import ENDED, History, TrialRecord
from raykd.searching.told import told_of
from raykd.spec.axis import Axis
from raykd.spec.axis_kinds import Pick, is_number, same
from raykd.spec.search import SearchSpec
from raykd.spec.space import METHOD
from trainables.core.errors import UserError
from trainables.spec.trial import NOT_IDENTITY
from trainables.training.flat_names import flatten

SHARE = 4  # of the samples at most one in so many is a point of an earlier sweep
_NAMED = 3  # fields that a reason shows with both values
_MISSING = object()


@dataclass(frozen=True)
class _Found:
    """What an earlier trial is to this sweep."""

    sweep: str
    trial: TrialRecord
    params: dict[str, Any]
    use: str  # told | point | outside; of the points only some are tried
    reason: str

    @property
    def settings(self) -> str:
        """Its configuration in this sweep, to compare by."""
        return json.dumps(self.params, sort_keys=True)


class _Outside(Exception):
    """A setting that no configuration of the space has; the message says which."""


def take_over(spec: SearchSpec, histories: Mapping[str, History]) -> Earlier:
    """What `spec` has from the sweeps with these names, in their order. Reads no storage."""
    found = [
        [_found(spec, name, trial) for trial in sorted(history.trials.values(), key=lambda t: t.number)]
        for name, history in histories.items()
    ]
    every = list(chain.from_iterable(found))
    told = [one for one in every if one.use == "told"]
    known = {one.settings for one in told} | {json.dumps(point, sort_keys=True) for point in spec.points}
    most = spec.samples // SHARE
    points = list(_best_first([[one for one in of if one.use == "point"] for of in found], known))[:most]
    tried = {json.dumps(point.params, sort_keys=True) for point in points}

    def row(one: _Found) -> tuple[str, str, str]:
        if one.use != "point" or one.settings in tried:
            return one.sweep, one.use, one.reason
        if one.settings in known:
            return one.sweep, "spare", "the same settings are told, or among `points`"
        return one.sweep, "spare", f"{one.reason}; at most {most} of {spec.samples} samples are such points"

    counts = Counter(map(row, every))
    order = {name: place for place, name in enumerate(histories)}
    uses = ("told", "point", "spare", "outside")
    rows = sorted(counts, key=lambda key: (order[key[0]], uses.index(key[1]), -counts[key]))
    return Earlier(
        tuple(Row(sweep, counts[sweep, use, reason], use, reason) for sweep, use, reason in rows),
        tuple(_told(one) for one in told),
        tuple(points),
    )


def _told(one: _Found) -> ToldTrial:
    told = told_of(one.trial)  # of a trial that ran on for an audit what its own sampler was told
    return ToldTrial(one.sweep, one.trial.trial, one.params, told.status or one.trial.status, told.scores)


def _found(spec: SearchSpec, sweep: str, trial: TrialRecord) -> _Found:
    if trial.status not in ENDED:
        return _Found(sweep, trial, {}, "outside", "has not ended")
    try:
        params = _params(spec, trial.config)
        own = spec.trial(params, trial.replicate)
    except _Outside as outside:
        return _Found(sweep, trial, {}, "outside", str(outside))
    except UserError as error:
        return _Found(sweep, trial, {}, "outside", f"cannot be trained here: {error.field} {error.problem}")
    if own.signature() != trial.trial:
        reason = _difference(trial.config, flatten(own))
    elif trial.replicate not in spec.seeds:
        reason = f"seed {trial.replicate} is none of `seeds`"
    else:
        return _Found(sweep, trial, params, "told", "the same trial here")
    if trial.status == "failed" or trial.best is None:
        return _Found(sweep, trial, params, "outside", f"has no score, and {reason}")
    return _Found(sweep, trial, params, "point", reason)


def _params(spec: SearchSpec, config: Mapping[str, Any]) -> dict[str, Any]:
    """The configuration of the space that has these settings (flat names). Raises `_Outside`."""
    method = config.get("method")
    if method not in spec.methods:
        raise _Outside(f"method {method} is not searched here")
    params: dict[str, Any] = {}
    for name, axis in spec.space.axes.items():
        if spec.space.active(name, params):
            flat = METHOD if name == METHOD else spec.space.fields[name].flat
            params[name] = _on_axis(name, axis, _setting(config, flat))
    return params


def _setting(config: Mapping[str, Any], flat: str) -> Any:
    """The value of a field; of one that holds a mapping the mapping, whose parts have flat names."""
    if flat in config:
        return config[flat]
    inner = {
        key.removeprefix(f"{flat}."): value for key, value in config.items() if key.startswith(f"{flat}.")
    }
    return inner or _MISSING


def _on_axis(name: str, axis: Axis, value: Any) -> Any:
    """`value` as the axis has it. Raises `_Outside`."""
    if value is _MISSING:
        raise _Outside(f"{name} is not set there")
    if isinstance(axis, Pick):
        for level in axis.pick:
            if same(level, value) or axis.encode(level) == json.dumps(value, sort_keys=True):
                return level
        raise _Outside(f"{name} {_shown(value)} is none of {axis.describe().removeprefix('pick ')}")
    if axis.contains(value):
        return value
    low, high = axis.domain.values
    if is_number(value) and not low <= value <= high:
        raise _Outside(f"{name} above {high:g}" if value > high else f"{name} below {low:g}")
    raise _Outside(f"{name} {_shown(value)} is not on {axis.describe()}")


def _difference(there: Mapping[str, Any], here: Mapping[str, Any]) -> str:
    """Why the two, all settings of a trial there and of its likeness here, are not one trial."""
    places = {f"{section}.{name}" for section, names in NOT_IDENTITY.items() for name in names}
    differing = [
        name
        for name in dict.fromkeys([*there, *here])
        if name not in places and not same(there.get(name, _MISSING), here.get(name, _MISSING))
    ]
    if not differing:
        return "the teacher's file, own code or raykd has changed since"
    shown = [f"{name} {_shown(there.get(name))}, here {_shown(here.get(name))}" for name in differing]
    more = f"; {', '.join(differing[_NAMED:])}" if len(differing) > _NAMED else ""
    return "; ".join(shown[:_NAMED]) + more


def _shown(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _best_first(found: Sequence[Sequence[_Found]], known: set[str]) -> Iterator[Point]:
    """The configurations of these candidates that are not `known`, those of each sweep best first.

    Scores of two sweeps may not compare, so the sweeps take turns. Of one sweep those that were trained to
    their end come before those that were stopped early.
    """
    taken = set(known)
    for one in chain.from_iterable(zip_longest(*map(_ranked, found))):
        if one is not None and (settings := json.dumps(one.params, sort_keys=True)) not in taken:
            taken.add(settings)
            yield one


def _ranked(found: Sequence[_Found]) -> list[Point]:
    together: dict[str, list[_Found]] = {}
    for one in found:
        together.setdefault(one.settings, []).append(one)
    ranked = []
    for those in together.values():
        scores = [one.trial.best[0] for one in those if one.trial.best is not None]
        whole = any(one.trial.status == "finished" for one in those)
        first = those[0]
        point = Point(first.sweep, first.trial.trial, first.params, sum(scores) / len(scores))
        ranked.append((whole, point))
    return [point for _, point in sorted(ranked, key=lambda pair: (not pair[0], -pair[1].score))]
