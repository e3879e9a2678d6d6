"""Whether the scores of two sweeps say the same thing: the same probe on the same images."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from raykd.records.history import History
from trainables.core.errors import UserError
from trainables.data import sources
from trainables.evaluation import probes
from trainables.evaluation.probes.base import Probe
from trainables.spec.trial import NOT_IDENTITY, DataSpec, ProbeSpec

# Settings of a probe that do not change a score: what else is recorded, and how often.
_NO_SCORE = ("record", "every")
_BY_PATH = ("folder", "parquet")  # sources whose images are whatever lies there
_DEFAULTS = {  # flat name -> the value where a ledger is older than the field
    **{
        f"data.{name}": field.default
        for name, field in DataSpec.model_fields.items()
        if name not in NOT_IDENTITY["data"]
    },
    **{
        f"probe.{name}": field.default
        for name, field in ProbeSpec.model_fields.items()
        if name not in _NO_SCORE
    },
    "data.path": None,
}


def incomparable(histories: list[History]) -> dict[str, list[list[Any]]]:
    """Field -> its values in each of the sweeps, for each field by which scores do not compare.

    A field whose values vary within a sweep is one of them. Trials are asked, since `fixed` and axes may set
    any field. A sweep without trials says nothing.
    """
    used = [_used(history) for history in histories]
    found = {
        name: [side[name] for side in used]
        for name in _DEFAULTS
        if len({repr(value) for side in used for value in side[name]}) > 1
    }
    names = {name for side in used for name in side["data.name"]}
    if "data.path" in found and not any(name in _BY_PATH or _foreign_source(name) for name in names):
        del found["data.path"]  # the same set, elsewhere
    scores = {name for side in used for name in side["probe.score"]}
    own_probe = any(_foreign(probes.find_probe, probes.plugins_of, name) for name in scores)
    if own_probe or any(map(_foreign_source, names)):
        codes = [_codes(history) for history in histories]
        for module in sorted({module for side in codes for module in side}):
            if len({side.get(module) for side in codes}) > 1:
                found[f"plugins.{module}"] = [[side.get(module)] for side in codes]
    methods = [sorted({trial.method for trial in history.trials.values()}) for history in histories]
    one = [probe for name in scores if (probe := _found(name)) is not None and not probe.comparable]
    if one and len({method for side in methods for method in side}) > 1:
        found["method"] = list(methods)  # such a probe ranks trials of one method
    return found


def _used(history: History) -> dict[str, list[Any]]:
    """Flat name -> the values that its trials have, in the order of the trials."""
    found: dict[str, list[Any]] = {name: [] for name in _DEFAULTS}
    for trial in history.trials.values():
        for name, values in found.items():
            value = trial.config.get(name, _DEFAULTS[name])
            if value not in values:
                values.append(value)
    return found


def _codes(history: History) -> dict[str, str]:
    """Module -> hash of its code, of the user's own that the sweep was started with."""
    return {name: said["code"] for name, said in ((history.sweep or {}).get("plugins") or {}).items()}


def _foreign(find: Callable[[str], object], plugins_of: Callable[[str], list[str]], name: str) -> bool:
    """Whether a probe or a source is not raykd's own; also where its module is not here."""
    try:
        return find(name) is None or bool(plugins_of(name))
    except UserError:
        return True


def _foreign_source(name: str) -> bool:
    return _foreign(sources.find_source, sources.plugins_of, name)


def _found(name: str) -> Probe | None:
    try:
        return probes.find_probe(name)
    except UserError:
        return None
