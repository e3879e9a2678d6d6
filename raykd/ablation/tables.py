"""A study's results as rows and sentences, for the terminal, the files and the page.

A paper's numbers stand in a column of their own, marked as the paper's. Nothing is computed with them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from raykd.ablation.conclusions import FUTILE
from raykd.ablation.costs import base_first, times
from raykd.ablation.results import ArmResult, Results

NONE = "–"  # in a cell without a value
COUNTED = (
    "Flops are counted: forward and backward of what is trained, forward of teacher and mean student; the "
    "teacher's own training and the probes are not in them. Seconds are a trial's mean on its lane"
)


def table(results: Results, compute: bool = True) -> tuple[list[str], list[list[str]]]:
    """Columns and rows, one row an arm, the base first.

    With `compute` there is a column with the cost of a trial, as a multiple of the base's.
    """
    level = f"{100 * (1 - results.rules.alpha):g} %"
    sequential = results.rules.sequential
    columns = ["arm", "replicates", "mean ± sd", "IQM", "difference", f"{level} interval"]
    columns += ["answer"] if sequential else ["p (Holm)"]
    columns += ["effect", "P(better)", "won/tied/lost", "detectable"]
    costed = compute and any(arm.flops is not None for arm in results.arms)
    published = any(arm.published is not None for arm in results.arms)
    columns += (["compute"] if costed else []) + (["the paper's"] if published else [])
    rows = []
    for arm in base_first(results):
        more = [times(arm.compute)] if costed else []
        rows.append([*_row(results, arm), *more, *([number(arm.published)] if published else [])])
    return columns, rows


def facts(results: Results) -> list[str]:
    """What was compared, how, and at which budget."""
    rules = results.rules
    lines = [
        f"{rules.design.replace('_', ' ')} against {rules.base!r}",
        f"score: {results.scored}",
        f"budget: {results.budget}",
    ]
    if rules.decide:
        lines.append(f"replicates until the sign is known, {rules.replicates} at most")
    elif rules.precision is not None:
        lines.append(f"replicates until ± {rules.precision:g} points, {rules.replicates} at most")
    if rules.published is not None:
        unit = f", {rules.published.unit}" if rules.published.unit else ""
        lines.append(f"the paper's: {rules.published.source}{unit}; not ours, not compared")
    return lines


def legend(results: Results) -> list[str]:
    """How each column of `table` is computed."""
    rules = results.rules
    family = "the one comparison" if len(results.arms) == 2 else f"all {len(results.arms) - 1} comparisons"
    lines = ["difference: arm minus base in points, paired by seed; failed ones are left out and counted"]
    if rules.decide:
        lines.append(
            "interval, answer: alpha spending (Lan and DeMets 1983) over the looks, simultaneous over "
            f"{family}"
        )
        lines.append(
            f"futile: the chance of an answer at the last look was below {100 * FUTILE:g} % (Spiegelhalter, "
            "Freedman and Blackburn 1986); says nothing for or against a difference"
        )
    elif rules.precision is not None:
        lines.append(f"interval: valid where its own rule stops, simultaneous over {family} (Bonferroni)")
    else:
        lines.append("interval: paired t, of each comparison alone")
        beside = {"factorial": " and for the effects", "compare": " and for the ranks"}.get(rules.design, "")
        tested = max((arm.comparison.comparisons for arm in results.arms if arm.comparison), default=0)
        those = family if tested == len(results.arms) - 1 else f"the {tested} with pairs enough"
        lines.append(f"p: paired t, two-sided, corrected by Holm for {those}{beside}")
    lines += [
        "effect: Hedges' g of the paired differences; P(better): of a run of the arm over one of the base",
        "detectable: the smallest true difference that this many pairs find with power 0.8",
    ]
    if any(arm.flops is not None for arm in results.arms):
        lines.append(f"compute, ×: flops of a trial over the base's. {COUNTED}")
    ratios = [arm.pairing for arm in results.arms if math.isfinite(arm.pairing)]
    if ratios:
        mean = math.fsum(ratios) / len(ratios)
        lines.append(f"pairing: variance of paired over unpaired differences {mean:.2f}, mean over the arms")
    return lines


def effects_table(results: Results) -> tuple[list[str], list[list[str]]] | None:
    """Columns and rows of main effects and two-way interactions; None where there are none."""
    if results.effects is None:
        return None
    factors = results.rules.factors
    names = list(factors)

    def named(effect: Sequence[int]) -> str:
        return " x ".join(names[f] for f in effect)

    rows = []
    for e in results.effects.effects:
        levels = zip(e.factors, e.levels, strict=True)
        said = ", ".join(f"{names[f]}={factors[names[f]][0]} -> {factors[names[f]][at]}" for f, at in levels)
        mixed = ", ".join(map(named, e.aliases)) or NONE
        interval = f"[{e.interval.low:+.2f}, {e.interval.high:+.2f}]"
        rows.append([named(e.factors), said, f"{e.estimate:+.2f}", interval, _p(e.p_holm), mixed])
    level = f"{100 * (1 - results.rules.alpha):g} % interval"
    return ["effect", "levels", "points", level, "p (Holm)", "cannot be told from"], rows


def ranks(results: Results) -> list[str]:
    """Mean ranks and the groups that cannot be told apart."""
    found = results.ranking
    if found is None or not math.isfinite(found.p):
        return ["No ranks: fewer than two replicates that every arm finished."]
    labels = [arm.label for arm in results.arms]
    order = sorted(range(len(labels)), key=lambda i: found.mean_ranks[i])
    lines = ["mean ranks: " + ", ".join(f"{labels[i]} {found.mean_ranks[i]:.2f}" for i in order)]
    lines.append(
        f"Friedman p {_p(found.p)} over {found.replicates} replicates"
        + (f" ({found.left_out} left out)" if found.left_out else "")
        + f"; critical difference of two ranks {found.critical_difference:.2f} (Nemenyi)"
    )
    groups = "; ".join(", ".join(labels[i] for i in group) for group in found.groups)
    lines.append(f"not told apart: {groups}")
    return lines


def data(results: Results) -> dict[str, Any]:
    """All results as plain data, for JSON; `arms` are the rows of the CSV file."""
    rules = results.rules
    effects = effects_table(results)
    return {
        "name": results.name,
        "done": results.done,
        "design": rules.design,
        "base": rules.base,
        "score": results.score,
        "score_at": rules.score_at,
        "budget": results.budget,
        "alpha": rules.alpha,
        "published": rules.published and rules.published.source,
        "arms": [_plain(arm) for arm in results.arms],
        "effects": [dict(zip(effects[0], row, strict=True)) for row in effects[1]] if effects else [],
        "ranks": ranks(results) if results.ranking is not None else [],
        "notes": list(results.notes),
    }


def number(value: float | None, sign: bool = False) -> str:
    """Two digits behind the point, with `sign` also a plus; a dash where there is no finite value."""
    if value is None or not math.isfinite(value):
        return NONE
    return f"{value:+.2f}" if sign else f"{value:.2f}"


def _row(results: Results, arm: ArmResult) -> list[str]:
    """The cells of an arm that every study has."""
    planned = arm.finished + arm.failed
    count = f"{arm.finished} of {planned}" if arm.failed else str(arm.finished)
    spread = f"{number(arm.mean)} ± {number(arm.sd)}"
    c, verdict = arm.comparison, arm.verdict
    if c is None:
        return [arm.label, count, spread, number(arm.iqm), "base", *[NONE] * 6]
    if arm.failed or results.base.failed:
        count += f", {c.pairs} pairs"
    mean, interval = c.mean, c.interval
    answer = _p(c.p_holm)
    if verdict is not None:
        mean, interval = (verdict.mean, verdict.interval) if verdict.pairs else (mean, verdict.interval)
        running = "open (too few pairs)" if results.done else "not yet"
        answer = f"{verdict.outcome} ({verdict.reason})" if verdict.stopped else running
    ends = (interval.low, interval.high)
    shown = f"[{number(ends[0], True)}, {number(ends[1], True)}]" if all(map(math.isfinite, ends)) else NONE
    return [
        *(arm.label, count, spread, number(arm.iqm), number(mean, True), shown, answer),
        *(number(c.effect, True), number(c.improvement.probability), f"{c.wins}/{c.ties}/{c.losses}"),
        number(c.detectable),
    ]


def _plain(arm: ArmResult) -> dict[str, Any]:
    """Column -> value of an arm; None or NaN where there is none."""
    c, verdict = arm.comparison, arm.verdict
    interval = verdict.interval if verdict is not None else c.interval if c is not None else None
    sequential = verdict is not None
    return {
        "arm": arm.label,
        **{name: getattr(arm, name) for name in ("finished", "failed", "waiting", "mean", "sd", "iqm")},
        "pairs": c and c.pairs,
        "difference": verdict.mean if verdict is not None and verdict.pairs else c and c.mean,
        "low": interval and interval.low,
        "high": interval and interval.high,
        "p": None if sequential else c and c.p,
        "p_holm": None if sequential else c and c.p_holm,
        "answer": verdict and verdict.outcome,
        "reason": verdict and verdict.reason,
        "effect": c and c.effect,
        "improvement": c and c.improvement.probability,
        **{name: c and getattr(c, name) for name in ("wins", "ties", "losses", "detectable")},
        "variance_ratio": arm.pairing,
        "trained_parameters": arm.spec.trained_parameters,
        "step_flops": arm.spec.step_flops,
        "flops": arm.flops,
        "compute": arm.compute,
        "epochs": arm.epochs,
        "steps": arm.spec.epoch_steps and arm.epochs * arm.spec.epoch_steps,
        "wall_s": arm.wall_s,
        "published_by_the_paper": arm.published,
    }


def _p(p: float) -> str:
    """A p value to three digits."""
    if not math.isfinite(p):
        return NONE
    return "< 0.001" if p < 0.001 else f"{p:.3f}"
