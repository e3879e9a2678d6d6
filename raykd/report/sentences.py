"""Results in sentences: with the numbers of the tables, and without claims that these do not support."""

from __future__ import annotations

import math
from statistics import fmean

from raykd.ablation.results import ArmResult, Results
from raykd.ablation.tables import number
from raykd.console.wording import score_of, settings
from raykd.records.history import History, TrialRecord
from raykd.report.common import score_name
from raykd.spec.search import SearchSpec
from raykd.spec.space import METHOD
from raykd.stats.paired import paired_t


def best_in_words(spec: SearchSpec, history: History, best: TrialRecord) -> str:
    """A sentence on the best trial and its score; with several seeds, on the best configuration."""
    assert best.best is not None
    score, epoch = best.best
    what, said = score_name(history.spec), settings(best)
    if METHOD not in best.params:
        said = f"{best.method}, {said}"
    if len(spec.seeds) == 1:
        at = f"at epoch {epoch} of {best.epochs or spec.epochs}"
        return f"Trial {best.trial} is best, with {score_of(best.reports[epoch])} {at} ({what}): {said}."
    scores = [t.best[0] for t in history.trials.values() if t.arm == best.arm and t.best]
    mean, half = fmean(scores), float(paired_t(scores).half_width(0.05))
    ends = f", 95 % interval [{mean - half:.2f}, {mean + half:.2f}]" if half > 0 else ""
    return (
        f"Best on average over {len(scores)} seeds, with {mean:.2f}{ends} ({what}): {said}. Its best seed is "
        f"trial {best.trial} with {score:.2f}."
    )


def against(history: History, best: TrialRecord) -> list[str]:
    """A sentence on each reference: its score, and the distance of the best trial."""
    assert best.best is not None
    found = []
    for record in history.references.values():
        score = record["metrics"].get("score", math.nan)
        if math.isfinite(score):
            apart = round(best.best[0], 2) - round(score, 2)  # what a reader gets from the numbers shown
            where = "above" if apart >= 0 else "below"
            said = f"{record['label']}: {score_of(record['metrics'])}"
            found.append((apart, f"{said}; the best is {abs(apart):.2f} points {where}"))
    return [said for _, said in sorted(found)]


def study_in_words(results: Results) -> tuple[str, list[str]]:
    """The answer of a study in one sentence, and one sentence an arm."""
    base = results.rules.base
    others = [arm for arm in results.arms if arm.label != base]
    told = [arm_in_words(results, arm) for arm in others]
    signs = [sign(results, arm) for arm in others]
    named = [arm.label for arm, sign in zip(others, signs, strict=True) if sign in ("better", "worse")]
    start = "" if results.done else "So far (the study is not done): "
    if named:
        verb = "differs" if len(named) == 1 else "differ"
        lead = f"{len(named)} of {len(others)} arms {verb} from {base!r}: {', '.join(named)}."
    elif all(sign == "none" for sign in signs):
        lead = f"There are too few results to compare any arm with {base!r}."
    else:
        compared = [arm.label for arm, sign in zip(others, signs, strict=True) if sign != "none"]
        whom = repr(compared[0]) if len(compared) == 1 else f"any of {len(compared)} other arms"
        left = len(others) - len(compared)
        lead = f"The data show no difference between {base!r} and {whom}"
        lead += f"; {left} of {len(others)} could not be compared." if left else "."
    return start + lead, told


def arm_in_words(results: Results, arm: ArmResult) -> str:
    """A sentence on what the data support of one arm against the base."""
    base, c, found = results.rules.base, arm.comparison, sign(results, arm)
    if c is None or found == "none":
        pairs = c.pairs if c is not None else 0
        return f"{arm.label}: {pairs} pair{'s' * (pairs != 1)} with {base!r}, too few to compare."
    mean, (low, high), pairs = c.mean, c.interval, c.pairs
    if arm.verdict is not None:
        mean, (low, high), pairs = arm.verdict.mean, arm.verdict.interval, arm.verdict.pairs
    level = f"{100 * (1 - results.rules.alpha):g} %"
    ends = f", {level} interval [{low:+.2f}, {high:+.2f}]" if math.isfinite(high - low) else ""
    p = f", corrected {_p(c.p_holm)}" if arm.verdict is None and math.isfinite(c.p_holm) else ""
    stands = f"{mean:+.2f} points{ends}{p}, {pairs} pairs"
    if found in ("better", "worse"):
        return f"{arm.label} is {found} than {base!r}: {stands}."
    if found == "similar":
        return f"{arm.label} and {base!r} differ by less than {results.rules.margin:g} points: {stands}."
    missed = f" A true difference below {number(c.detectable)} points was likely to be missed."
    missed = missed if math.isfinite(c.detectable) else ""
    return f"{arm.label}: no difference from {base!r} was shown: {stands}.{missed}"


def _p(p: float) -> str:
    return "p < 0.001" if p < 0.001 else f"p {p:.3f}"


def sign(results: Results, arm: ArmResult) -> str:
    """better | worse | similar | open | none (nothing to compare)."""
    if arm.verdict is not None:
        return str(arm.verdict.outcome) if arm.verdict.pairs else "none"
    c = arm.comparison
    if c is None or c.pairs < 2 or not math.isfinite(c.p_holm):
        return "none"
    if c.p_holm > results.rules.alpha:
        return "open"
    return "better" if c.mean > 0 else "worse"
