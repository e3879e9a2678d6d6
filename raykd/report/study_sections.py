"""The sections of an ablation study: answer, table, design, replicates, effects, ranks, looks, the paper."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from raykd.ablation import tables
from raykd.ablation.by_task import by_task, conclude_by
from raykd.ablation.conclusions import verdicts
from raykd.ablation.costs import costs_table
from raykd.ablation.report import FILES
from raykd.ablation.results import ArmResult, Results
from raykd.console.wording import number
from raykd.records.history import History, TrialRecord
from raykd.report import common
from raykd.report import study_figures as figures
from raykd.report.elements import Bullets, Facts, Figure, Gallery, Section, Table, Text
from raykd.report.evaluation_section import evaluations
from raykd.report.plots import curve, intervals
from raykd.report.sentences import sign, study_in_words
from raykd.spec.arms import ARM
from raykd.spec.study import StudySpec
from raykd.storage.base import SweepFolder


def content(
    spec: StudySpec, history: History, sweep: SweepFolder, out: Path, by: str | None = None
) -> tuple[Facts, list[Section]]:
    """The head of the page, and its sections, by the score `by` of a task. `out` is the page's file."""

    def arm(trial: TrialRecord) -> str:
        return str(trial.params.get(ARM))

    return common.facts(history), [
        *sections(spec, history, by),
        *evaluations(history, sweep, by_task(spec, history) if by is None else {}),
        common.failures(history, "arm", arm),
        common.compute(history, "arm", arm),
        common.again(history, sweep.storage, spec.starts_by),
        common.links(history, sweep.path, out, [(name, "the table of the study") for name in FILES]),
    ]


def sections(spec: StudySpec, history: History, by: str | None = None) -> Iterator[Section]:
    """The sections in the order of the page, without those that do not apply to the study's design."""
    results = conclude_by(spec, history, by)
    yield answer(results)
    yield comparison(results, history)
    yield design(results)
    yield replicates(results)
    if results.rules.design == "factorial":
        yield effects(results)
    if results.ranking is not None:
        yield ranks(results)
    if results.rules.sequential:
        yield looks(results)
    yield published(results)
    yield learning(results, history)


def answer(results: Results) -> Section:
    """What the data support, with the limits of it."""
    lead, told = study_in_words(results)
    parts: list[Any] = [Text(lead, "lead"), Bullets(told)]
    if results.notes:
        parts += [Text("To be known:"), Bullets(results.notes, "warn")]
    return Section("The answer", [*parts, _forest(results)])


def _forest(results: Results) -> Any:
    arms = [arm for arm in tables.data(results)["arms"] if arm["arm"] != results.rules.base]
    rows = [
        (str(a["arm"]), float(a["difference"]), float(a["low"]), float(a["high"]))
        for a in arms
        if a["difference"] is not None and math.isfinite(a["difference"])
    ]
    if not rows:
        return Text("No figure of differences: no arm has a pair with the base yet.")
    level = f"{100 * (1 - results.rules.alpha):g} %"
    alt = (
        f"Difference of each arm to {results.rules.base!r} in points, paired by seed, with its {level} "
        "interval; right of zero the arm is better. Orange: the data support a difference, corrected for the "
        "number of arms. The table below holds the numbers."
    )
    claimed = {arm.label for arm in results.arms if sign(results, arm) in ("better", "worse")}
    colours = ["@best" if label in claimed else "@finished" for label, *_ in rows]
    plot = intervals(rows, "points over the base", zero=True, colours=colours)
    return Figure("Paired differences", alt, plot)


def comparison(results: Results, history: History) -> Section:
    """The table of the study, and how to read it."""
    columns, rows = tables.table(results)
    parts: list[Any] = [Table("Arms, the base first", columns, rows, frozenset({0}))]
    parts += [Bullets(tables.legend(results), "quiet"), Table("What the arms cost", *costs_table(results))]
    beside = common.references(history)
    return Section("Comparison", [*parts, *([beside] if beside is not None else [])])


def design(results: Results) -> Section:
    """What was varied, what else differs, and the number of pairs of each comparison."""
    rules = results.rules
    replicates = f"{rules.replicates} at most" if rules.sequential else len(results.base.scores)
    rows: list[tuple[str, str]] = [
        ("Design", rules.design.replace("_", " ")),
        ("Base", rules.base),
        ("Budget", results.budget),
        ("Score", results.scored),
        ("Replicates", f"{replicates}, paired by seed"),
        ("Error over the whole study", f"{rules.alpha:g}"),
    ]
    rows += [("Looks after", f"{', '.join(map(str, rules.looks))} pairs")] if rules.sequential else []
    rows += [("Points that make no difference", f"{rules.margin:g}")] if rules.margin else []
    rows += [("Allowed to differ", ", ".join(rules.allow))] if rules.allow else []
    cells = []
    for arm in results.arms:
        pairs = str(arm.comparison.pairs) if arm.comparison is not None else "base"
        also = "; ".join(f"{k} {a!r} -> {b!r}" for k, (a, b) in arm.spec.also.items())
        cells.append([
            arm.label, _declared(arm) or "nothing", str(arm.epochs), str(arm.finished),
            str(arm.failed), str(arm.waiting), pairs, also or "nothing",
        ])  # fmt: skip
    columns = ["arm", "declared", "epochs", "finished", "failed", "not ended", "pairs", "differs also in"]
    table = Table("Arms, what they change, and what each comparison stands on", columns, cells)
    said = (
        "Replicate r of every arm starts from the same student and sees the same images in the same order "
        "and views. The confound guard refuses an arm that differs in more than it declares; what follows "
        "necessarily is in the last column."
    )
    return Section("Design", [Facts(rows), table, Text(said, "quiet")])


def replicates(results: Results) -> Section:
    """The scores of all replicates."""
    arms = [arm for arm in results.arms if arm.finished]
    if not arms:
        return Section("Replicates", [Text("No replicate has finished yet.")])
    most = max(len(arm.scores) for arm in results.arms)
    padded = [[*arm.scores, *[math.nan] * (most - len(arm.scores))] for arm in results.arms]
    rows = [
        [arm.label, *map(tables.number, scores)] for arm, scores in zip(results.arms, padded, strict=True)
    ]
    seeds = [f"seed {seed}" for seed in range(most)]
    table = Table("Scores by seed; – failed or not run", ["arm", *seeds], rows)
    alt = "A dot for each finished replicate, a bar at the mean of each arm; a line joins those of one seed."
    plot = figures.replicates([(arm.label, arm.scores) for arm in arms], [arm.mean for arm in arms])
    return Section("Replicates", [Figure("Every replicate", alt, plot), table])


def effects(results: Results) -> Section:
    """Main effects and interactions of a factorial."""
    found = tables.effects_table(results)
    title = "Effects"
    if found is None or results.effects is None:
        said = "The trials that finished leave an effect undetermined; the notes say why."
        return Section(title, [Text(said)])
    columns, rows = found
    each = zip(rows, results.effects.effects, strict=True)
    drawn = [(row[1], e.estimate, e.interval.low, e.interval.high) for row, e in each]
    alt = (
        "Main effects and two-way interactions in points, with their intervals; the table holds the numbers."
    )
    plot = intervals(drawn, "points", zero=True)
    parts: list[Any] = [Figure("Effects", alt, plot), Table("Main effects and interactions", columns, rows)]
    fit = results.effects.lack_of_fit
    if math.isfinite(fit):
        simple = "the model of main effects and two-way interactions is too simple"
        doubt = simple if fit <= 0.05 else "none seen"
        parts.append(Text(f"Lack of fit: {doubt} (p {fit:.3f}).", "warn" if fit <= 0.05 else "quiet"))
    return Section(title, parts)


def ranks(results: Results) -> Section:
    """The mean ranks of the arms, with groups that are not told apart."""
    said = tables.ranks(results)
    ranking = results.ranking
    if ranking is None or not math.isfinite(ranking.p):
        return Section("Ranks", [Bullets(said)])
    labels = [arm.label for arm in results.arms]
    means = [float(rank) for rank in ranking.mean_ranks]
    alt = (
        f"Mean ranks over {ranking.replicates} replicates, 1 is best; a bar joins arms that cannot be told "
        f"apart (critical difference {ranking.critical_difference:.2f})."
    )
    order = sorted(range(len(labels)), key=lambda i: means[i])
    table = Table("Mean ranks", ["arm", "mean rank"], [[labels[i], f"{means[i]:.2f}"] for i in order])
    plot = figures.ranking(labels, means, ranking.groups)
    return Section("Ranks", [Figure("Critical differences", alt, plot, table), Bullets(said, "quiet")])


def looks(results: Results) -> Section:
    """The interval of each arm at each look of a sequential study."""
    others = [arm for arm in results.arms if arm.label != results.rules.base]
    base = np.array(results.base.scores)
    differences = np.array([arm.scores for arm in others], dtype=float).reshape(len(others), -1) - base
    seen: list[dict[int, Any]] = [{} for _ in others]
    for replicate in range(1, differences.shape[1] + 1):
        for at, verdict in enumerate(verdicts(results.rules, differences[:, :replicate])):
            if verdict.pairs:
                seen[at].setdefault(verdict.pairs, verdict)
    rows, drawn = [], []
    for arm, by_pairs in zip(others, seen, strict=True):
        found = [by_pairs[n] for n in sorted(by_pairs)]
        for v in found:
            shown = [f"{x:+.2f}" if math.isfinite(x) else "–" for x in (v.mean, *v.interval)]
            told = f"{v.outcome} ({v.reason})" if v.stopped else "goes on"
            rows.append([arm.label, str(v.pairs), *shown, told])
        if found:
            ends = [(v.interval.low, v.interval.high) for v in found]
            plot = figures.looks([v.pairs for v in found], [v.mean for v in found], ends)
            alt = f"{arm.label} against the base at each look, with intervals that hold under peeking."
            drawn.append(Figure(arm.label, alt, plot))
    if not rows:
        return Section("Looks", [Text("The study has not looked yet.")])
    columns = ["arm", "pairs", "difference", "from", "to", "answer"]
    return Section("Looks", [Gallery(drawn), Table("What was seen at each look", columns, rows)])


def published(results: Results) -> Section:
    """The numbers that the paper published, in a figure of their own."""
    title, source = "The paper's numbers", results.rules.published
    rows = [(a.label, a.published, math.nan, math.nan) for a in results.arms if a.published is not None]
    if source is None or not rows:
        return Section(title, [Text("The study's file names no published numbers.")])
    unit = f" ({source.unit})" if source.unit else ""
    alt = (
        f"From {source.source}{unit}: the paper's own numbers, not ours. Nothing is computed with them, and "
        "they are not on the scale of the scores above."
    )
    plot = intervals(rows, f"the paper's{unit}", colours=["@paper"] * len(rows), symbol="diamond-open")
    cells = [[label, number(value)] for label, value, *_ in rows]
    table = Table(f"The paper's: {source.source}{unit}", ["arm", "the paper's"], cells)
    return Section(title, [Figure(f"As {source.source} has it", alt, plot, table)])


def learning(results: Results, history: History) -> Section:
    """The mean score of each arm by epoch."""
    rows = []
    for arm in results.arms:
        by_epoch: dict[int, list[float]] = {}
        for trial in history.trials.values():
            if trial.params.get(ARM) == arm.label and trial.status == "finished":
                for epoch, score in zip(*curve(trial), strict=True):
                    by_epoch.setdefault(epoch, []).append(score)
        epochs = sorted(by_epoch)
        if epochs:
            rows.append((arm.label, epochs, [float(np.mean(by_epoch[e])) for e in epochs]))
    if not rows:
        return Section("Learning curves", [Text("No replicate has finished yet.")])
    every = sorted({epoch for _, epochs, _ in rows for epoch in epochs})
    means = [dict(zip(epochs, scores, strict=True)) for _, epochs, scores in rows]
    cells = [[str(epoch), *(number(of.get(epoch, "")) for of in means)] for epoch in every]
    table = Table("Mean scores by epoch", ["epoch", *(label for label, *_ in rows)], cells)
    alt = "Mean score by epoch of each arm, over its finished replicates."
    return Section("Learning curves", [Figure("Score by epoch", alt, figures.curves(rows), table)])


def _declared(arm: ArmResult) -> str:
    """The changes that an arm declares, in words."""
    own = {"method": arm.spec.method, "preset": arm.spec.preset, "epochs": arm.spec.epochs}
    values = {**{name: value for name, value in own.items() if value is not None}, **arm.spec.settings}
    return ", ".join(f"{name} {value}" for name, value in values.items())
