"""Which students a search refuses before they train: over a limit, or unable to take the images."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from optuna.trial import TrialState

from raykd.searching.optuna_state import End
from raykd.spec.search import SearchSpec
from raykd.spec.size_sections import LimitsSpec
from raykd.spec.sweep import SweepSpec
from trainables.core.errors import UserError
from trainables.spec.trial import TrialSpec

UNFIT = "student"  # the constraint of a student that cannot take the images; its violation is 1

# The latency of a trial's student in milliseconds; None while it is measured.
Latency = Callable[[TrialSpec], float | None]


class Judged(NamedTuple):
    """A trial's student before its search's limits."""

    size: dict[str, float]  # params, macs
    over: dict[str, float]  # limit -> by which share it is exceeded; {} for a student that may train
    reason: str | None  # why it may not
    known: dict[str, float]  # its size, and its latency where that was measured


def judge(
    spec: SearchSpec, trial: TrialSpec, params: Mapping[str, Any], latency: Latency | None
) -> Judged | None:
    """The size of the student of configuration `params`, and whether it may train; None: ask again later.

    `latency` None: limits of latency do not count.
    """
    try:
        size: dict[str, float] = size_of(spec, trial, params)
    except UserError as error:
        return Judged({}, {UNFIT: 1.0}, str(error), {})
    known, limits = size, spec.limits or LimitsSpec()
    over = limits.over(size)
    if not over and spec.needs_latency and latency is not None:
        measured = latency(trial)
        if measured is None:
            return None
        known = {**size, "latency": measured}
        over = limits.over(known)
    reason = "; ".join(limits.said(name, known[name]) for name in over)
    return Judged(size, over, reason or None, known)


def student_of(spec: SearchSpec, params: Mapping[str, Any]) -> Judged:
    """The student of another sweep's configuration; of one that cannot be trained here nothing is known."""
    if spec.limits is None and not spec.objective:
        return Judged({}, {}, None, {})
    try:
        found = judge(spec, spec.trial(params, spec.seeds[0]), params, None)
    except UserError:
        found = None
    return found if found is not None else Judged({}, {}, None, {})


def size_of(spec: SweepSpec, trial: TrialSpec, params: Mapping[str, Any]) -> dict[str, Any]:
    """The size of the trial's student, for the ledger: `params` and `macs` as of `student_size`.

    Raises `UserError`, at the place where the user wrote it, for a student that cannot be built, or cannot
    take the trial's images.
    """
    from trainables.networks.sizes import student_size

    try:
        return student_size(trial.student.model, trial.data.image_size)._asdict()
    except UserError as error:
        raise spec.placed(error, params) from None


def refused_end(over: Mapping[str, float]) -> End:
    """What Optuna is told of a configuration that was not trained: by which share it is over each limit.

    `over` is {} for a sampler that learns nothing from it.
    """
    return End(TrialState.PRUNED, over=over) if over else End(TrialState.FAIL)
