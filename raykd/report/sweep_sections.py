"""The sections of a search: answer, history, curves, trials. Parameters and proxy have own modules."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from raykd.console.wording import comparison, headings, number, probes, settings
from raykd.records.history import ENDED, STATUSES, History
from raykd.report import common
from raykd.report import sweep_figures as figures
from raykd.report.common import trials_table
from raykd.report.elements import Bullets, Code, Collapsible, Facts, Figure, Section, Table, Text
from raykd.report.evaluation_section import evaluations
from raykd.report.front_section import front
from raykd.report.outcome_section import outcomes
from raykd.report.parameter_section import Progress, parameters
from raykd.report.plots import curve, intervals
from raykd.report.proxy_section import proxy
from raykd.report.sentences import against, best_in_words
from raykd.report.size_section import sizes
from raykd.spec.search import SearchSpec
from raykd.storage.base import SweepFolder
from raykd.storage.commands import command

HIGHLIGHTED = 5  # trials, among the curves


def content(
    spec: SearchSpec, history: History, sweep: SweepFolder, out: Path, progress: Progress = None
) -> tuple[Facts, list[Section]]:
    """The head of the page, and its sections. `out` is the page's file.

    `progress` is told (done, of how many) while sections are made that take long.
    """
    if len(common.methods(history.spec)) > 1:
        spent = common.compute(history, "method", lambda trial: trial.method)
    else:
        spent = common.compute(history, "status of trials", lambda trial: trial.status, STATUSES)
    export = command("export", sweep, "--out", "student")
    return common.facts(history, common.searched(history)), [
        *sections(spec, history, export, progress),
        *evaluations(history, sweep),
        common.failures(history, "settings", settings),
        spent,
        common.again(history, sweep.storage, spec.starts_by),
        common.links(history, sweep.path, out),
    ]


def sections(spec: SearchSpec, history: History, export: str, progress: Progress = None) -> Iterator[Section]:
    """The sections in the order of the page. `export` is the command that exports the best trial.

    `progress` is called with (done, total) while importances are computed.
    """
    yield answer(spec, history, export)
    if (sized := front(history)) is not None:
        yield sized
    yield scores(history)
    yield learning(history)
    yield parameters(spec, history, progress)
    yield proxy(spec, history)
    if found := outcomes(spec, history):
        yield Section("The score against tasks", found)
    if (sized := sizes(history)) is not None:
        yield sized
    table = trials_table(history, "All trials, best first")
    folded = len(table.rows) > 20
    said = table if table.rows else Text("No trial was proposed yet.")
    yield Section("Trials", [Collapsible(f"All {len(table.rows)} trials", [table])] if folded else [said])


def answer(spec: SearchSpec, history: History, export: str) -> Section:
    """The best configuration and its comparison with the references."""
    best = history.best()
    if best is None or best.best is None:
        said = "No trial has a score yet, so there is no best one."
        return Section("The answer", [Text(said, "lead"), *_comparison(history)])
    parts: list[Any] = [Text(best_in_words(spec, history, best), "lead")]
    parts += [Bullets(found)] if (found := against(history, best)) else []
    parts += _comparison(history)
    if best.params:
        rows = []
        for name, value in best.params.items():
            searched = spec.axes[name].describe() if name in spec.axes else ", ".join(spec.methods)
            rows.append([name, number(value), searched])
        parts.append(Table(f"The settings of {best.trial}", ["axis", "value", "searched"], rows))
    ended = sum(t.status in ENDED for t in history.trials.values())
    doubts = [
        f"The best of {ended} trials on a validation split flatters itself a little. The test split was not "
        "read: the command below reads it, once, and gives its score an interval."
    ]
    if history.earlier is not None and history.earlier.told:
        names = ", ".join(spec.warm_start)
        doubts.append(
            f"Its sampler began with the scores of {len(history.earlier.told)} trials of {names}. They are "
            "in no table and no figure here, and none of them can be the best."
        )
    if len(spec.seeds) == 1:
        doubts.append("One seed: how far another seed would move these scores is not known from this sweep.")
    return Section("The answer", [*parts, Bullets(doubts, "quiet"), Code(export)])


def _comparison(history: History) -> list[Any]:
    found = comparison(history)
    if not found:
        return []
    metrics = probes([m for _, m in found])
    rows = [[label, *(number(m.get(k, "")) for k in metrics)] for label, m in found]
    strong = frozenset(i for i, row in enumerate(rows) if row[0].startswith("best trial"))
    table = Table("Score and probes, percent where they count images", ["", *headings(metrics)], rows, strong)
    drawn = []
    for label, m in found:
        score, half = m.get("score", math.nan), 1.96 * m.get("score_se", math.nan)
        if math.isfinite(score):
            drawn.append((label, score, score - half, score + half))
    if not drawn:
        return [table]
    colours = ["@best" if name.startswith("best trial") else "@finished" for name, *_ in drawn]
    alt = (
        "Scores of the best trial and of what it has to beat. Bars: 95 % intervals over the probe's draws of "
        "labels where it has any, for one training seed; they say nothing of other seeds."
    )
    return [Figure("Best trial and references", alt, intervals(drawn, "score", colours=colours)), table]


def scores(history: History) -> Section:
    """The figure of scores by trial."""
    trials = sorted(history.trials.values(), key=lambda t: t.number)
    if not any(t.best or t.status == "failed" for t in trials):
        return Section("History", [Text("No trial has been scored or has failed yet.")])
    counts = ", ".join(f"{n} {status}" for status, n in history.counts().items() if n)
    alt = (
        f"Best score of each trial, in the order in which they were proposed ({counts}), and the best so "
        "far. The table of all trials holds the numbers."
    )
    return Section("History", [Figure("Score by trial", alt, figures.history(trials))])


def learning(history: History) -> Section:
    """The figure of scores by epoch, the best trials highlighted."""
    trials = [t for t in history.trials.values() if curve(t)[0]]
    if not trials:
        return Section("Learning curves", [Text("No epoch has been scored yet.")])
    ranked = sorted((t for t in trials if t.best), key=lambda t: -(t.best or (0.0, 0))[0])[:HIGHLIGHTED]
    stopped = sum(t.status == "stopped" for t in trials)
    said = f"{stopped} were stopped early, where there is a cross" if stopped else "None was stopped early"
    alt = f"Score by epoch of {len(trials)} trials; the best {len(ranked)} in colour. {said}."
    epochs = sorted({e for t in ranked for e in curve(t)[0]})
    found = [dict(zip(*curve(t), strict=True)) for t in ranked]
    rows = [[str(e), *(number(of.get(e, "")) for of in found)] for e in epochs]
    table = Table("Scores by epoch of the best trials", ["epoch", *(t.trial for t in ranked)], rows)
    return Section("Learning curves", [Figure("Score by epoch", alt, figures.curves(trials, ranked), table)])
