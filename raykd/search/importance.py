"""How much each axis of a sweep matters: Optuna's evaluators, with an interval over bootstrap resamples.

    found = importances(spec_of(history), history)

Which scores. A trial's score is its best up to one epoch that all trials compared here have reached: the
last epoch that at least half of those that finished or were stopped did. Scores at different budgets would
make the scheduler's choice of budget look like an effect. Finished trials alone would be too few, and only
the best (asha with factor 2 lets about one in two past each rung); the first rung would keep all, at a score
that says little of the last. Trials stopped earlier, failed, still running or without a score are left out
and counted. The study that the sampler learned from is not used: it mixes budgets.

Which observations. Replicates (seeds) are averaged: a configuration is one observation, and a resample draws
configurations.

Conditional axes. fANOVA and MDI need a value of every axis in every trial. So the axes that always take part
are weighed over all configurations, and for each condition (`method = cc`) the axes that take part there
over the configurations in which it holds, those that always take part among them. PED-ANOVA (Watanabe et
al. 2023, and its conditional form of 2026 in Optuna 5) takes every axis over all configurations at once.

A share is an axis's importance over the sum of those in its table. fANOVA (Hutter et al. 2014): the variance
that the axis's main effect explains, over the whole axis, in a random forest; MDI: the decrease of that
forest's squared error by splits on the axis; PED-ANOVA: how far the axis's values among the best tenth (at
least five) lie from those of all. Optuna's fANOVA weighs a logarithmic axis evenly by value, so that its
last decade counts for nearly all; here such an axis goes in as its logarithm, evenly as it is drawn.

Intervals are percentiles over resamples (`benchmarks/importance_coverage.py`: of simulated sweeps of 40
configurations they held shares of axes that matter about as often as they say). A share is never negative,
so the interval of an axis that does nothing lies above its 0: a small share whose lower end is near 0 is no
evidence.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from raykd.records.history import History, TrialRecord
from raykd.records.recorded_spec import check_settings
from raykd.search.evaluators import (
    EVALUATORS,
    FEWEST,
    TREES,
    Observation,
    freeze,
    make_evaluator,
    predicted,
    shares_of,
)
from raykd.spec.space import Space
from raykd.spec.sweep import SweepSpec
from raykd.stats import bootstrap
from raykd.stats.paired import FloatArray, IntArray
from trainables.core.errors import SweepFailed, UserError

PER_AXIS = 10  # configurations an axis, below which a sweep is called too small
TREES_OF_A_RESAMPLE = 8  # what a forest of 8 varies by itself is little beside what resamples do

Condition = Mapping[str, tuple[Any, ...]]


@dataclass(frozen=True)
class Share:
    """What part of its table's importance an axis has, in [0, 1], and the ends of its 95 % interval."""

    axis: str
    share: float
    low: float
    high: float


@dataclass(frozen=True)
class Weighed:
    """The axes that take part in the same configurations, largest share first."""

    condition: dict[str, tuple[Any, ...]]  # axis -> values; empty: all configurations
    configurations: int
    shares: tuple[Share, ...]  # none where nothing can be computed; `warnings` says why
    predicted: float  # R² of a forest for configurations it was not fitted to; NaN: not computed
    resamples: int  # those in which every share could be had
    warnings: tuple[str, ...]

    @property
    def label(self) -> str:
        """`method = cc or retro, adapter = mlp`, or `all configurations`."""
        held = (f"{axis} = {' or '.join(map(str, values))}" for axis, values in self.condition.items())
        return ", ".join(held) or "all configurations"


@dataclass(frozen=True)
class Importances:
    """What a sweep says about its axes, and what that stands on."""

    evaluator: str
    meaning: str  # of the evaluator's importances, in a few words
    epoch: int  # scores are the best up to and with this one
    epochs: int  # of a whole trial
    trials: int  # that are used
    configurations: int
    left_out: dict[str, int]  # why -> trials
    tables: tuple[Weighed, ...]
    warnings: tuple[str, ...]  # of the sweep as a whole


def importances(
    spec: SweepSpec,
    history: History,
    evaluator: str = "fanova",
    *,
    resamples: int = 200,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> Importances:
    """Importances of the axes of `spec` in `history`; the same arguments give the same numbers.

    `progress` is told how many evaluations are done, and of how many. Raises `UserError` for an unknown
    evaluator, `SweepFailed` while no trial has ended with a score.
    """
    if evaluator not in EVALUATORS:
        raise UserError("--evaluator", "no such evaluator", value=evaluator, choices=EVALUATORS)
    if not spec.space.axes:
        raise UserError("axes", "the sweep has none, so there is nothing to weigh", expected="at least one")
    check_settings(spec, history)
    epoch, trials, left_out = _comparable(history)
    arms: dict[str, list[TrialRecord]] = {}
    for trial in trials:
        arms.setdefault(trial.arm, []).append(trial)
    seen = [
        Observation(of[0].params, float(np.mean([trial.best_at(epoch) for trial in of])))
        for of in arms.values()
    ]
    groups = _groups(spec.space) if evaluator != "pedanova" else [({}, list(spec.space.axes))]
    total = len(groups) * resamples
    done = 0

    def step() -> None:
        nonlocal done
        done += 1
        if progress is not None:
            progress(min(done, total), total)

    weigh = partial(_weigh, spec.space, evaluator=evaluator, resamples=resamples, seed=seed, step=step)
    tables = tuple(weigh(condition, names, _where(condition, seen)) for condition, names in groups)
    said = []
    if left_out["not ended"]:
        said.append(f"trials that have not ended: {left_out['not ended']}; what they add is not in here")
    if left_out["stopped earlier"]:
        said.append(
            f"{left_out['stopped earlier']} trials were stopped before epoch {epoch} and are left out. They "
            "were the weaker ones: an axis that made them weak matters more than it seems to here"
        )
    return Importances(
        evaluator=evaluator,
        meaning=EVALUATORS[evaluator],
        epoch=epoch,
        epochs=spec.epochs,
        trials=len(trials),
        configurations=len(seen),
        left_out=left_out,
        tables=tables,
        warnings=tuple(said),
    )


def _comparable(history: History) -> tuple[int, list[TrialRecord], dict[str, int]]:
    """The common epoch, the trials that have a score there, and how many are left out for what."""
    all_trials = sorted(history.trials.values(), key=lambda trial: trial.number)
    ended = [t for t in all_trials if t.status in ("finished", "stopped") and t.best is not None]
    if not ended:
        raise SweepFailed("no trial of this sweep has ended with a score yet")
    reached = sorted((t.epoch for t in ended), reverse=True)
    epoch = reached[math.ceil(len(reached) / 2) - 1]
    used = [t for t in ended if t.epoch >= epoch and t.best_at(epoch) is not None]
    earlier = sum(t.epoch < epoch for t in ended)
    failed = sum(t.status == "failed" for t in all_trials)
    open_ = sum(t.status in ("running", "waiting") for t in all_trials)
    rest = len(all_trials) - len(used) - earlier - failed - open_
    return epoch, used, {
        "failed": failed, "stopped earlier": earlier, "without a score": rest, "not ended": open_
    }  # fmt: skip


# --- conditions -------------------------------------------------------------------------------------------


def _groups(space: Space) -> list[tuple[dict[str, tuple[Any, ...]], list[str]]]:
    """(condition, axes that always take part where it holds), the one without a condition first."""
    whole = {name: _whole_condition(space, name) for name in space.axes}
    distinct: list[dict[str, tuple[Any, ...]]] = [{}]
    for condition in whole.values():
        if condition not in distinct:
            distinct.append(condition)
    return [
        (held, [name for name in space.axes if _implied(whole[name], held)])
        for held in sorted(distinct, key=len)
        if all(held.values())
    ]


def _whole_condition(space: Space, name: str) -> dict[str, tuple[Any, ...]]:
    """The condition of an axis, and those of the axes that it depends on."""
    whole: dict[str, tuple[Any, ...]] = {}
    for other, values in space.conditions[name].items():
        for axis, allowed in {**_whole_condition(space, other), other: values}.items():
            whole[axis] = tuple(value for value in whole.get(axis, allowed) if value in allowed)
    return whole


def _implied(wanted: Condition, held: Condition) -> bool:
    return all(
        other in held and all(value in values for value in held[other]) for other, values in wanted.items()
    )


def _where(condition: Condition, seen: Sequence[Observation]) -> list[Observation]:
    return [o for o in seen if all(o.params.get(axis) in values for axis, values in condition.items())]


# --- one table --------------------------------------------------------------------------------------------


def _weigh(
    space: Space,
    condition: dict[str, tuple[Any, ...]],
    names: Sequence[str],
    seen: Sequence[Observation],
    *,
    evaluator: str,
    resamples: int,
    seed: int,
    step: Callable[[], None],
) -> Weighed:
    """The shares of the axes `names` over the configurations `seen`."""
    varied: list[str] = []
    still: list[str] = []
    for name in names:
        levels = {space.axes[name].encode(o.params[name]) for o in seen if name in o.params}
        if len(levels) > 1:
            varied.append(name)
        elif len(condition.get(name, ())) != 1:  # the condition says so already
            still.append(name)
    said = [f"{', '.join(still)} did not vary here"] if still and seen else []
    scores = np.array([o.score for o in seen])
    if len(seen) < FEWEST:
        problem = f"{_count(len(seen), 'configuration')}: too few to say anything"
    elif not varied:
        problem = "no axis varied: there is nothing to weigh"
    elif np.ptp(scores) == 0:
        problem = "every configuration has the same score: no axis made a difference"
    else:
        problem = ""
    if problem:
        return Weighed(condition, len(seen), (), math.nan, 0, (problem, *said))

    frozen = [freeze(space, varied, o, evaluator) for o in seen]
    point = shares_of(make_evaluator(evaluator, TREES, len(seen), seed), frozen, varied)
    rough = make_evaluator(evaluator, TREES_OF_A_RESAMPLE, len(seen), seed)

    def of_resample(indices: IntArray) -> FloatArray:
        step()
        return shares_of(rough, [frozen[i] for i in indices], varied)

    spread = bootstrap(of_resample, len(seen), resamples=resamples, seed=seed)
    if not spread.resamples or not np.isfinite(point).all():
        problem = "the evaluator can tell nothing apart in these scores: too few, or too many that are equal"
        return Weighed(condition, len(seen), (), math.nan, 0, (problem, *said))
    # A resample repeats configurations, so its forest is blunter: its shares may all lie to one side.
    low, high = np.fmin(spread.low, point), np.fmax(spread.high, point)
    shares = [Share(name, *map(float, row)) for name, *row in zip(varied, point, low, high, strict=True)]
    shares.sort(key=lambda share: -share.share)
    skill = predicted(space, varied, seen, seed)
    problems = _doubts(shares, len(seen), skill)
    return Weighed(condition, len(seen), tuple(shares), skill, spread.resamples, (*problems, *said))


def _doubts(shares: Sequence[Share], configurations: int, skill: float) -> list[str]:
    """Why these shares may not say much, in words."""
    said = []
    if configurations < PER_AXIS * len(shares):
        said.append(
            f"too small to say: {_count(configurations, 'configuration')} for {_count(len(shares), 'axis')}, "
            f"fewer than {PER_AXIS} an axis"
        )
    if skill <= 0:
        said.append(
            "too small to say: a forest fitted to the other configurations tells a configuration's score no "
            "better than their mean does, so these may be shares of noise"
        )
    if len(shares) == 1:
        said.append(f"{shares[0].axis} is the only axis that varied: its share is 1 whatever it does")
    elif shares[1].high >= shares[0].low:
        said.append(
            f"whether {shares[0].axis} or {shares[1].axis} matters most is open: their intervals overlap"
        )
    return said


def _count(number: int, noun: str) -> str:
    plural = {"axis": "axes"}.get(noun, noun + "s")
    return f"{number} {noun if number == 1 else plural}"
