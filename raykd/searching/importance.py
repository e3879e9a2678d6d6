"""The importance of each axis of a sweep: Optuna's evaluators, with an interval over bootstrap resamples.

    found = importances(spec_of(history), history)

Scores. All trials are compared at one epoch, the last one that at least half of the finished or stopped
trials reached. A trial's score is its best up to this epoch. Scores at different budgets would show the
scheduler's choice of budgets as an effect. Finished trials alone would be few and only the best (asha with
factor 2 lets about one in two past each rung). The first rung would keep all trials, but its scores predict
the last ones badly. Trials that stopped earlier, failed, still run or have no score are left out and counted.
The study that the sampler learned from is not used, because it mixes budgets.

Observations. Replicates (seeds) are averaged: a configuration is one observation, and a resample draws
configurations.

Conditional axes. fANOVA and MDI need a value of every axis in every trial. So one table has the axes that are
always active, over all configurations. A further table for each condition (`method = cc`) has all axes that
are active under it, over the configurations that fulfil it. PED-ANOVA (Watanabe et al. 2023, and its
conditional form of 2026 in Optuna 5) has one table of all axes over all configurations.

Shares. A share is an axis's importance divided by the sum of importances in its table. fANOVA (Hutter et al.
2014) measures the variance that the axis's main effect explains in a random forest; MDI the decrease of that
forest's squared error by splits on the axis; PED-ANOVA the distance between the axis's values of the best
tenth (at least five) and those of all. A logarithmic axis enters as its logarithm (`evaluators.freeze`).

Intervals are percentiles over resamples. In simulated sweeps of 40 configurations they covered the shares of
axes that matter about as often as their nominal level (`benchmarks/importance_coverage.py`). A share is never
negative, so the interval of an axis without effect lies above 0: a small share with a lower end near 0 is no
evidence.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from raykd.records.history import ENDED_WELL, History, TrialRecord
from raykd.records.recorded_spec import check_settings
from raykd.searching.evaluators import (
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
from raykd.stats.bootstrap import bootstrap
from raykd.stats.paired import FloatArray, IntArray
from trainables.core.errors import SweepFailed, UserError

PER_AXIS = 10  # configurations per axis; with fewer a sweep is called too small
TREES_OF_A_RESAMPLE = 8  # a forest of 8 varies little by itself compared with the resamples

Condition = Mapping[str, tuple[Any, ...]]


@dataclass(frozen=True)
class Share:
    """An axis's share of the importance in its table, in [0, 1], and the ends of its 95 % interval."""

    axis: str
    share: float
    low: float
    high: float


@dataclass(frozen=True)
class Weighed:
    """A table of the axes that are active in the same configurations, largest share first."""

    condition: dict[str, tuple[Any, ...]]  # axis -> values; empty: all configurations
    configurations: int
    shares: tuple[Share, ...]  # empty if they cannot be computed; `warnings` has the reason
    predicted: float  # R² of a forest for configurations it was not fitted to; NaN: not computed
    resamples: int  # number of resamples in which every share could be computed
    warnings: tuple[str, ...]

    @property
    def label(self) -> str:
        """`method = cc or retro, adapter = mlp`, or `all configurations`."""
        held = (f"{axis} = {' or '.join(map(str, values))}" for axis, values in self.condition.items())
        return ", ".join(held) or "all configurations"


@dataclass(frozen=True)
class Importances:
    """The importances of a sweep's axes, and the data behind them."""

    evaluator: str
    meaning: str  # of the evaluator's importances, in a few words
    epoch: int  # scores are the best up to and including this epoch
    epochs: int  # of a complete trial
    trials: int  # number of trials used
    configurations: int
    left_out: dict[str, int]  # reason -> number of trials
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

    `progress(done, total)` is called after each evaluation. Raises `UserError` for an unknown evaluator and
    for a sweep without axes, `SweepFailed` if no trial has ended with a score.
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
    remarks = []
    if left_out["not ended"]:
        remarks.append(f"trials that have not ended: {left_out['not ended']}; what they add is not in here")
    if left_out["stopped earlier"]:
        remarks.append(
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
        warnings=tuple(remarks),
    )


def _comparable(history: History) -> tuple[int, list[TrialRecord], dict[str, int]]:
    """The common epoch, the trials with a score there, and the numbers of trials left out by reason."""
    all_trials = sorted(history.trials.values(), key=lambda trial: trial.number)
    ended = [t for t in all_trials if t.status in ENDED_WELL and t.best is not None]
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
    """(condition, axes that are always active under it), the empty condition first."""
    full = {name: _full_condition(space, name) for name in space.axes}
    distinct: list[dict[str, tuple[Any, ...]]] = [{}]
    for condition in full.values():
        if condition not in distinct:
            distinct.append(condition)
    return [
        (held, [name for name in space.axes if _implied(full[name], held)])
        for held in sorted(distinct, key=len)
        if all(held.values())
    ]


def _full_condition(space: Space, name: str) -> dict[str, tuple[Any, ...]]:
    """The condition of an axis, joined with those of the axes that it depends on."""
    full: dict[str, tuple[Any, ...]] = {}
    for other, values in space.conditions[name].items():
        for axis, allowed in {**_full_condition(space, other), other: values}.items():
            full[axis] = tuple(value for value in full.get(axis, allowed) if value in allowed)
    return full


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
        elif len(condition.get(name, ())) != 1:  # a condition with one value fixes the axis by itself
            still.append(name)
    remarks = [f"{', '.join(still)} did not vary here"] if still and seen else []
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
        return Weighed(condition, len(seen), (), math.nan, 0, (problem, *remarks))

    frozen = [freeze(space, varied, o, evaluator) for o in seen]
    point = shares_of(make_evaluator(evaluator, TREES, len(seen), seed), frozen, varied)
    rough = make_evaluator(evaluator, TREES_OF_A_RESAMPLE, len(seen), seed)

    def of_resample(indices: IntArray) -> FloatArray:
        step()
        return shares_of(rough, [frozen[i] for i in indices], varied)

    spread = bootstrap(of_resample, len(seen), resamples=resamples, seed=seed)
    if not spread.resamples or not np.isfinite(point).all():
        problem = "the evaluator can tell nothing apart in these scores: too few, or too many that are equal"
        return Weighed(condition, len(seen), (), math.nan, 0, (problem, *remarks))
    # A resample repeats configurations, so its forest is less sharp: all its shares may lie to one side.
    low, high = np.fmin(spread.low, point), np.fmax(spread.high, point)
    shares = [Share(name, *map(float, row)) for name, *row in zip(varied, point, low, high, strict=True)]
    shares.sort(key=lambda share: -share.share)
    skill = predicted(space, varied, seen, seed)
    problems = _doubts(shares, len(seen), skill)
    return Weighed(condition, len(seen), tuple(shares), skill, spread.resamples, (*problems, *remarks))


def _doubts(shares: Sequence[Share], configurations: int, skill: float) -> list[str]:
    """Reasons why these shares may be weak evidence, as sentences for the user."""
    remarks = []
    if configurations < PER_AXIS * len(shares):
        remarks.append(
            f"too small to say: {_count(configurations, 'configuration')} for {_count(len(shares), 'axis')}, "
            f"fewer than {PER_AXIS} an axis"
        )
    if skill <= 0:
        remarks.append(
            "too small to say: a forest fitted to the other configurations tells a configuration's score no "
            "better than their mean does, so these may be shares of noise"
        )
    if len(shares) == 1:
        remarks.append(f"{shares[0].axis} is the only axis that varied: its share is 1 whatever it does")
    elif shares[1].high >= shares[0].low:
        remarks.append(
            f"whether {shares[0].axis} or {shares[1].axis} matters most is open: their intervals overlap"
        )
    return remarks


def _count(number: int, noun: str) -> str:
    plural = {"axis": "axes"}.get(noun, noun + "s")
    return f"{number} {noun if number == 1 else plural}"
