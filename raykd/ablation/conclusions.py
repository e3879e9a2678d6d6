"""What the data of a study support: history -> results. A pure function; tables and pages show the results.

    results = conclude(spec, history)

A replicate counts once its trial has finished with a finite score. A failed one is NaN: it is left out of its
comparisons, counted, and shown. A sequential study has the intervals and outcomes of its looks, and neither p
values nor ranks, which repeated looks would make too small. A factorial makes claims about arms and effects,
a `compare` about arms and ranks. Each of the two families has half of alpha, so that at most alpha of all
studies claim a difference that is not there.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from statistics import fmean, stdev
from typing import Any, NamedTuple

import numpy as np

from raykd.ablation.costs import spread_of
from raykd.ablation.designs import design_of
from raykd.ablation.results import ArmResult, Results
from raykd.records.history import ENDED, History, TrialRecord
from raykd.spec.arms import ARM, StudyRules
from raykd.spec.study import StudySpec
from raykd.stats.boundaries import for_precision
from raykd.stats.comparison import Comparison, compare_to_base
from raykd.stats.effects import factorial_effects
from raykd.stats.paired import FloatArray, interquartile_mean, variance_ratio
from raykd.stats.ranks import rank
from raykd.stats.sequential import Verdict, decide_all, settle
from trainables.core.errors import UserError

FUTILE = 0.05  # `decide` stops an arm whose chance of an answer at the last look is smaller


class By(NamedTuple):
    """Other scores than those of the probe, by which arms are compared."""

    name: str
    scores: Mapping[str, float]  # trial -> points
    families: int  # how many tables like this one share alpha


def conclude(spec: StudySpec, history: History, by: By | None = None) -> Results:
    """The results of a study, of its trials so far; with `by` by these scores.

    The looks of a sequential study were taken by the probe's scores. By others it is a study with as many
    replicates as there are.
    """
    rules = extended_rules(spec, history)
    if by is not None:
        own = {"decide": False, "precision": None, "looks": (), "ends": (), "step": 0.0, "published": None}
        rules = rules.model_copy(update=own)
    table = _trials(spec, history)
    scores = {
        label: [math.nan if (s := _score(rules, t, by)) is None else s for t in row]
        for label, row in table.items()
    }
    others = [label for label in spec.arms if label != rules.base]
    base = np.array(scores[rules.base])
    families = rules.families * (by.families if by is not None else 1)
    shared: dict[str, Any] = {"alpha": rules.alpha, "step": rules.step, "families": families}
    rows = np.array([scores[label] for label in others])
    compared = dict(zip(others, compare_to_base(rows, base, **shared), strict=True))
    said = dict(zip(others, verdicts(rules, rows - base), strict=False))  # empty for a fixed study
    arms = [
        _arm(spec, label, table[label], scores[label], compared.get(label), said.get(label), base)
        for label in spec.arms
    ]
    notes: list[str] = []
    effects = None
    if rules.design == "factorial":
        try:
            design = design_of(rules.factors, spec.arms)
            effects = factorial_effects(design, np.array(list(scores.values())).T, **shared)
        except UserError as error:
            notes.append(f"no effects: {error}")
    ranking = None
    if rules.design == "compare" and not rules.sequential:
        ranking = rank(list(scores.values()), alpha=rules.alpha / families)
    notes += _notes(spec, history, arms)
    probe = spec.arm_trial(rules.base).probe.score
    budget = _budget(spec, arms)
    if by is not None and spec.study.sequential:
        notes.append("the number of replicates was chosen by the probe's score, and not by this one")
    return Results(
        spec.name, rules, probe, tuple(arms), ranking, effects, budget, tuple(notes), history.done,
        by.name if by is not None else "",
    )  # fmt: skip


def extended_rules(spec: StudySpec, history: History) -> StudyRules:
    """The rules of a study after all extensions so far."""
    return spec.study.extended(samples // len(spec.arms) for samples in history.extensions)


def verdicts(rules: StudyRules, differences: FloatArray) -> list[Verdict]:
    """The verdict of a sequential study on each arm after its looks; empty for a fixed study.

    differences (arms, replicates) in points, arm minus base, NaN where a side failed or is missing.
    """
    if not rules.sequential or not len(differences):
        return []
    common: dict[str, Any] = {"margin": rules.margin, "step": rules.step}
    if rules.decide:
        return decide_all(differences, rules.looks, alpha=rules.alpha, futility=FUTILE, **common)
    assert rules.precision is not None
    plan = for_precision(rules.looks, alpha=rules.alpha / len(differences), ends=rules.ends)
    return [settle(row, plan, rules.precision, **common) for row in differences]


def _score(rules: StudyRules, trial: TrialRecord | None, by: By | None) -> float | None:
    return score_of(rules, trial) if by is None or trial is None else by.scores.get(trial.trial)


def score_of(rules: StudyRules, trial: TrialRecord | None) -> float | None:
    """The score of a finished trial, points: of its last epoch or the best; None where none is finite."""
    if trial is None or trial.status != "finished":
        return None
    score = trial.last if rules.score_at == "last" else trial.best and trial.best[0]
    return score if score is not None and math.isfinite(score) else None


def _trials(spec: StudySpec, history: History) -> dict[str, list[TrialRecord | None]]:
    """arm -> its trial of each replicate."""
    there: Mapping[tuple[str, int], TrialRecord] = {
        (t.params[ARM], t.replicate): t for t in history.trials.values()
    }
    replicates = history.samples // len(spec.arms)
    if history.exhausted:
        replicates = max((seed for _, seed in there), default=-1) + 1
    return {label: [there.get((label, seed)) for seed in range(replicates)] for label in spec.arms}


def _arm(
    spec: StudySpec,
    label: str,
    trials: list[TrialRecord | None],
    scores: list[float],
    comparison: Comparison | None,
    verdict: Verdict | None,
    base: FloatArray,
) -> ArmResult:
    """The result of one arm; `trials` and `scores` by replicate, `base` the base's scores."""
    found = [score for score in scores if math.isfinite(score)]
    ended = [t for t in trials if t is not None and t.status in ENDED]
    published = spec.study.published
    epochs, flops = spec.cost(label)
    base_flops = spec.cost(spec.study.base)[1]
    return ArmResult(
        label=label,
        spec=spec.arms[label],
        scores=tuple(scores),
        finished=len(found),
        failed=len(ended) - len(found),
        waiting=0 if verdict is not None and verdict.stopped else len(trials) - len(ended),
        mean=fmean(found) if found else math.nan,
        sd=stdev(found) if len(found) > 1 else math.nan,
        iqm=interquartile_mean(scores),
        epochs=epochs,
        flops=flops,
        compute=flops / base_flops if flops is not None and base_flops else math.nan,
        wall_s=fmean([t.wall_s for t in ended]) if ended else math.nan,
        comparison=comparison,
        verdict=verdict,
        pairing=variance_ratio(scores, base) if comparison is not None else math.nan,
        published=published.values.get(label) if published is not None else None,
    )


def _budget(spec: StudySpec, arms: list[ArmResult]) -> str:
    """What is equal between the arms, and by how much their compute differs, in words."""
    each = ", ".join(f"{arm.label} {arm.epochs}" for arm in arms)
    if spec.study.budget == "steps":
        return f"equal optimizer steps, to the nearest epoch; epochs: {each}{spread_of(arms)}"
    if spec.study.budget == "compute":
        left = spread_of(arms, "what rounding leaves: from")
        return f"equal compute (counted, forward and backward), to the nearest epoch; epochs: {each}{left}"
    epochs = {arm.epochs for arm in arms}
    if len(epochs) == 1:
        return f"equal epochs ({epochs.pop()}){spread_of(arms)}"
    return f"unequal epochs: {each}{spread_of(arms)}"


def _notes(spec: StudySpec, history: History, arms: list[ArmResult]) -> list[str]:
    """What a reader has to know beside the numbers, a sentence each."""
    notes = []
    base = next(arm.spec.trained_parameters for arm in arms if arm.label == spec.study.base)
    for arm in arms:
        own = arm.spec.trained_parameters
        if own is not None and base and own != base:
            notes.append(f"{arm.label} trains {own:,} parameters, the base {base:,} ({own / base - 1:+.1%})")
        if arm.failed:
            notes.append(f"{arm.label}: {arm.failed} of {arm.failed + arm.finished} replicates failed")
        if arm.spec.tuned:
            tuned = ", ".join(f"{name} {value}" for name, value in arm.spec.tuned.items())
            notes.append(f"{arm.label} has settings of its own search: {tuned}")
        if arm.spec.also:
            named = ", ".join(f"{name} {a!r} -> {b!r}" for name, (a, b) in arm.spec.also.items())
            notes.append(f"{arm.label} also differs from {spec.study.base}: {named}")
    waiting = sum(arm.waiting for arm in arms)
    if waiting and not history.done:
        these = "1 replicate has" if waiting == 1 else f"{waiting} replicates have"
        notes.append(f"{these} not ended: these are no results yet")
    if history.extended:
        more, planned = history.extended // len(arms), spec.study.replicates
        extended = f"extended by {more} replicate{'s' * (more > 1)} after {planned}"
        doubt = "if the results had been looked at, p values and intervals are too good"
        if spec.study.precision is not None:
            doubt = "intervals hold if their width asked for more, and not where they lie"
        notes.append(f"{extended}: {doubt}")
    return notes
