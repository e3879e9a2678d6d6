"""Runs a small search for each arm before arms are compared, since settings tuned for the base favour it.

Each search is a sweep of its own beside the study's folder, with a seed that no replicate has. Its best
settings become part of the study's spec, so `resume` searches nothing again. The same command goes on with a
search that was interrupted.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from typing import Any

from raykd.console.live import Console
from raykd.console.wording import counted
from raykd.export.trial import config_of
from raykd.records.recorded_spec import spec_of
from raykd.records.views import read
from raykd.runs.changed_spec import as_begun
from raykd.runs.sweep import Place
from raykd.spec.difference import difference
from raykd.spec.search import SearchSpec, build_sweep
from raykd.spec.study import StudySpec
from raykd.spec.validate import validate
from trainables.core.errors import SweepFailed, UserError

SEED = 10_000  # of the searches
_ABOUT = 4  # without axes, a search covers the arm's learning rate divided and multiplied by this


def searches(spec: StudySpec) -> dict[str, SearchSpec]:
    """Label of an arm -> its search; {} without `retune`.

    Raises `UserError` for an axis that an arm sets itself, and for one that cannot work.
    """
    wanted = spec.study.retune
    if wanted is None:
        return {}
    for label, arm in spec.arms.items():
        for axis in wanted.axes or ("lr",):
            if axis in arm.settings:
                raise UserError(
                    f"retune.axes.{axis}", f"is what arm {label!r} sets", expected="another field"
                )
    found = {}
    for label in spec.arms:
        trial = spec.arm_trial(label, SEED)
        config = config_of(spec, trial)
        name = f"{spec.name[:50]}-{re.sub('[^A-Za-z0-9.]+', '_', label)[:30]}-{trial.arm()}"
        rate = trial.optim.lr
        axes: Mapping[str, Any] = wanted.axes or {"lr": {"log": [rate / _ABOUT, rate * _ABOUT]}}
        fixed = {field: value for field, value in config["fixed"].items() if field not in axes}
        try:
            search = build_sweep(
                {
                    **config,
                    "name": name,
                    "fixed": fixed,
                    "axes": axes,
                    "samples": wanted.samples,
                    "sampler": "tpe",
                    "lanes": spec.lanes,
                    "targets": spec.targets.model_dump(),
                    "attempts": spec.attempts,
                    "failures_in_a_row": spec.failures_in_a_row,
                    "keep_checkpoints": spec.keep_checkpoints,
                }
            )
            validate(search)
        except UserError as error:
            raise (error.under("retune") if error.field.startswith("axes") else error) from None
        found[label] = search
    return found


def tune(spec: StudySpec, place: Place, console: Console) -> StudySpec:
    """Run the searches; return the study with each arm's best settings. `place` is the study's.

    Raises `SweepFailed` where a search was interrupted or none of its trials has a score.
    """
    tuned = {}
    for label, search in searches(spec).items():
        console.say(f"{label}: a search of its own, {counted(search.samples, 'configuration')}", "bold")
        tuned[label] = {"tuned": _best(label, search, place, console)}
    return spec.with_arms(tuned)


def _best(label: str, search: SearchSpec, place: Place, console: Console) -> dict[str, object]:
    from raykd.runs import sweep as engine

    at = dataclasses.replace(place, sweep=place.sweep.storage.sweep(search.name))
    if at.sweep.has_ledger():
        then = spec_of(read(at.sweep))
        if then.hash() != as_begun(search, then).hash():
            raise UserError(
                "retune",
                f"the search in {at.sweep} was another one: {'; '.join(difference(then, search))}",
                expected="another name of the study, or that folder moved away",
            )
        history = engine.resume(at, console)
    else:
        history = engine.run(search, at, console)
    best = history.best()
    if not history.done:
        raise SweepFailed(f"the search of arm {label!r} is not done; the same command goes on with it")
    if best is None:
        raise SweepFailed(f"no trial of the search of arm {label!r} has a score")
    return best.params
