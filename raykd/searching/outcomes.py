"""How well a search's score ranks what its students are worth on the tasks of suites.

    for ranking in rankings(spec, history): ranking.column, ranking.metric, ranking.found[None].correlation

A student counts with its score at its best epoch, where its weights are from, and with the mean of its task's
seeds; a configuration with the mean over its training seeds. Configurations that were evaluated because they
score well differ less among themselves, so they say less. Where some were drawn by chance (`raykd evaluate
--sample N`), only these count. Configurations are drawn from those that have all of their seeds. No others
are compared.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from statistics import fmean

from raykd.records.evaluations import in_drawing_order, trial_scores, with_all_seeds
from raykd.records.history import History, TrialRecord
from raykd.searching.next_proxy import ENOUGH, FEWEST, Judge, is_judge, numbers, usable_judges
from raykd.searching.proxy_audit import ended
from raykd.spec.search import SearchSpec
from raykd.stats.prediction import Prediction, predictions

SCORE = "score"
_WHAT = "configurations"


@dataclass(frozen=True)
class Ranking:
    """How well one metric of the search ranks students on one task."""

    column: str  # evaluate/SUITE/TASK
    metric: str  # score | probe/NAME
    chance: bool  # whether the configurations are drawn by chance, or are all that there are
    arms: frozenset[str]  # the configurations that count
    found: dict[str | None, Prediction]  # over all configurations under None, and by method


def rankings(spec: SearchSpec, history: History) -> list[Ranking]:
    """The rankings of each task, by the score first; none where fewer than three configurations are known."""
    every = with_all_seeds(history.trials.values())
    found = []
    for column, outcomes in trial_scores(history.evaluated).items():
        known = {arm: trials for arm, trials in every.items() if all(t.trial in outcomes for t in trials)}
        drawn = _drawn(list(every), known)
        arms = frozenset(drawn if len(drawn) >= 3 else known)
        used = [trials for arm, trials in known.items() if arm in arms]
        if len(used) < 3:
            continue
        final = [fmean(outcomes[t.trial] for t in trials) for trials in used]
        methods = [trials[0].method for trials in used]
        for metric in _metrics(spec, used):
            early = [fmean(_at_best(t, metric) for t in trials) for trials in used]
            of = predictions(early, final, groups=methods)
            found.append(Ranking(column, metric, len(drawn) >= 3, arms, of))
    return found


def lines(spec: SearchSpec, history: History) -> list[str]:
    """What the evaluations say of the search's score, and of the next sweep's probe and first rung."""
    said, ranked = [], rankings(spec, history)
    for column in dict.fromkeys(one.column for one in ranked):
        of = [one for one in ranked if one.column == column]
        task = column.partition("/")[2]
        score = of[0].found[None]
        how = "drawn by chance" if of[0].chance else "chosen by their score, which says less"
        said.append(f"{task}: the score ranks students with {numbers(score, _WHAT)}, {how}.")
        better = max(of, key=lambda one: _low(one.found[None]))
        if better.metric != SCORE and _low(better.found[None]) > score.correlation.value:
            name = better.metric.removeprefix("probe/")
            said.append(f"{task}: {name} ranks them better, with {numbers(better.found[None], _WHAT)}.")
        said += _rung(spec, history, of[0], task)
    return said


def _rung(spec: SearchSpec, history: History, ranking: Ranking, task: str) -> list[str]:
    """From which epoch on a metric predicts the task, over trials of `ranking` that ran to their end."""
    outcomes = trial_scores(history.evaluated)[ranking.column]
    counts = [e for e in ended(spec, history) if not ranking.chance or e.trial.arm in ranking.arms]
    ran = [e for e in counts if e.trial.trial in outcomes]
    whole = [replace(e, final=outcomes[e.trial.trial]) for e in ran]
    if len(whole) < FEWEST:
        return []
    judges = [judge for judge in usable_judges(spec, history, whole) if judge.least >= ENOUGH]
    if not judges:
        return [f"{task}: no probe predicts it well enough before the last epoch to stop trials by."]
    first: Judge = judges[0]
    name = "the score" if first.metric == SCORE else first.metric.removeprefix("probe/")
    return [f"{task}: {name} predicts it from epoch {first.epoch} on, with {numbers(first.found)}."]


def _drawn(every: list[str], known: Mapping[str, object]) -> list[str]:
    """The configurations up to the first one in the order of drawing that was not evaluated."""
    found = []
    for arm in in_drawing_order(every):
        if arm not in known:
            break
        found.append(arm)
    return found


def _metrics(spec: SearchSpec, used: list[list[TrialRecord]]) -> list[str]:
    """The score, and the probes that every trial has at its best epoch."""
    trials = [trial for trials in used for trial in trials]
    named = dict.fromkeys(m for t in trials if t.best for m in t.reports[t.best[1]] if is_judge(spec, m))
    return [SCORE, *(m for m in named if all(math.isfinite(_at_best(t, m)) for t in trials))]


def _at_best(trial: TrialRecord, metric: str) -> float:
    assert trial.best is not None
    return trial.best[0] if metric == SCORE else trial.reports[trial.best[1]].get(metric, math.nan)


def _low(found: Prediction) -> float:
    low = found.correlation.interval.low
    return low if math.isfinite(low) else -math.inf
