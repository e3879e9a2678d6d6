"""How often a study is wrong, over thousands of simulated studies whose truth is known.

Scores are as a study's: a seed moves all arms alike, and each trial has a scatter of its own. A share of
studies is a binomial count, so each bound comes with its Clopper-Pearson interval. Streams differ from those
the boundaries were made from. `benchmarks/ablation_stats.py` prints the same and more.
"""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats as scipy_stats

from raykd.stats.boundaries import for_precision, spending
from raykd.stats.comparison import compare_to_base, holm
from raykd.stats.designs import full_factorial
from raykd.stats.effects import factorial_effects
from raykd.stats.paired import paired_t
from raykd.stats.ranks import rank
from raykd.stats.sequential import at_looks, decide, decide_all, settle

ARMS, LOOKS = 4, tuple(range(3, 11))


def studies(count: int, replicates: int, seed: int, gains: float | list[float] = 0.0) -> np.ndarray:
    """Scores (studies, base and arms, replicates): the seed's part has sd 2, a trial's own sd 1."""
    rng = np.random.default_rng(seed)
    scores = 70 + 2 * rng.standard_normal((count, 1, replicates))
    scores = scores + rng.standard_normal((count, ARMS + 1, replicates))
    scores[:, 1:] += np.broadcast_to(np.asarray(gains, dtype=np.float64), (ARMS,))[:, None]
    return np.asarray(scores)


def interval(wrong: np.ndarray) -> tuple[float, float]:
    """99 % Clopper-Pearson."""
    found = scipy_stats.binomtest(int(wrong.sum()), wrong.size).proportion_ci(0.99)
    return found.low, found.high


def at_most(wrong: np.ndarray, alpha: float = 0.05) -> None:
    """The share itself: for claims of a family, which Holm and Bonferroni keep below alpha."""
    assert wrong.mean() <= alpha, (wrong.mean(), interval(wrong))


def as_stated(wrong: np.ndarray, alpha: float = 0.05) -> None:
    """For what is wrong in alpha of all cases by design, so that half of all samples have a little more."""
    assert interval(wrong)[0] <= alpha, (wrong.mean(), interval(wrong))


@pytest.mark.parametrize("replicates", [3, 5, 10])
def test_equal_arms_compared_once(replicates: int) -> None:
    scores = studies(20_000, replicates, seed=replicates)
    claims = (holm(paired_t(scores[:, 1:] - scores[:, :1]).p) <= 0.05).any(axis=1)
    at_most(claims)
    for study, claimed in zip(scores[:40], claims, strict=False):
        assert any(c.p_holm <= 0.05 for c in compare_to_base(study[1:], study[0])) == claimed


def test_equal_arms_with_coarse_scores() -> None:
    """An accuracy over 200 images, where three replicates often differ by the same number of images."""
    scores = np.round(studies(20_000, 3, seed=11) * 2) / 2
    at_most((holm(paired_t(scores[:, 1:] - scores[:, :1], step=0.5).p) <= 0.05).any(axis=1))
    tight = np.round((70 + 0.2 * np.random.default_rng(1).standard_normal((20_000, 2, 4))) * 2) / 2
    at_most(paired_t(tight[:, 1] - tight[:, 0], step=0.5).p <= 0.05)


def test_equal_arms_looked_at_after_every_replicate() -> None:
    scores = studies(20_000, LOOKS[-1], seed=21)
    differences = scores[:, 1:] - scores[:, :1]
    found = at_looks(differences, LOOKS)
    plan = spending(LOOKS, alpha=0.05 / ARMS)
    claims = (np.abs(found.t) >= plan.critical).any(axis=(1, 2))
    at_most(claims)
    for study, claimed in zip(differences[:100], claims, strict=False):
        assert any(v.reason == "sign" for v in decide_all(study, LOOKS)) == claimed
    # What the plan is for: uncorrected looks would claim a difference in far more studies.
    assert (found.p <= 0.05 / ARMS).any(axis=(1, 2)).mean() > 0.1


@pytest.mark.slow
def test_equal_arms_through_every_rule() -> None:
    """2,000 whole studies without a shortcut: failed trials, early stops on the margin and on futility."""
    scores = studies(2_000, LOOKS[-1], seed=31)
    scores[np.random.default_rng(0).random(scores.shape) < 0.03] = math.nan
    fixed, sequential = [], []
    for study in scores:
        fixed.append(any(c.p_holm <= 0.05 for c in compare_to_base(study[1:], study[0])))
        verdicts = decide_all(study[1:] - study[0], LOOKS, margin=2.0, futility=0.05)
        sequential.append(any(v.reason == "sign" for v in verdicts))
    at_most(np.array(fixed))
    at_most(np.array(sequential))


@pytest.mark.slow
def test_equal_arms_beside_better_ones() -> None:
    """Two arms really are better, so Holm hands their shares on: the other two stay within 5 % together."""
    scores = studies(2_000, LOOKS[-1], seed=41, gains=[4.0, 4.0, 0.0, 0.0])
    verdicts = [decide_all(study[1:] - study[0], LOOKS) for study in scores]
    at_most(np.array([any(v.reason == "sign" for v in study[2:]) for study in verdicts]))
    assert np.mean([v.outcome == "better" for study in verdicts for v in study[:2]]) > 0.95


@pytest.mark.parametrize("replicates", [3, 4, 6])
def test_equal_arms_by_rank(replicates: int) -> None:
    scores = studies(1_500, replicates, seed=50 + replicates)
    at_most(np.array([len(rank(study).groups) > 1 for study in scores]))


def test_equal_settings_of_a_factorial_and_coverage_of_real_effects() -> None:
    design = full_factorial([2, 2, 2])
    rng = np.random.default_rng(61)
    claims, covered = [], []
    for _ in range(800):
        noise = rng.normal(0, 2, (3, 1)) + rng.normal(0, 1, (3, 8))
        claims.append(any(e.p_holm <= 0.05 for e in factorial_effects(design, noise).effects))
        effects = factorial_effects(design, noise + 2 * design[:, 0] + design[:, 1] * design[:, 2]).effects
        truth = {(0,): 2.0, (1,): 0.5, (2,): 0.5, (1, 2): 1.0}
        covered.append([e.interval.low <= truth.get(e.factors, 0.0) <= e.interval.high for e in effects])
    at_most(np.array(claims))
    low, high = scipy_stats.binom.interval(0.999, 800, 0.95)
    assert ((np.sum(covered, axis=0) >= low) & (np.sum(covered, axis=0) <= high)).all()


@pytest.mark.parametrize("gain", [0.0, 1.0, 3.0])
def test_intervals_cover_wherever_a_study_stopped(gain: float) -> None:
    """Simultaneous ones all arms at once; those of `decide` at its own stop, early or late."""
    scores = studies(1_500, LOOKS[-1], seed=71, gains=gain)
    test = paired_t(scores[:, 1:, :5] - scores[:, :1, :5])
    at_most((np.abs(test.mean - gain) > test.half_width(0.05 / ARMS)).any(axis=1))
    plan = spending(LOOKS)
    verdicts = [decide(d, plan, futility=0.1) for d in scores[:, 1] - scores[:, 0]]
    as_stated(np.array([not v.interval.low <= gain <= v.interval.high for v in verdicts]))


@pytest.mark.parametrize("half_width", [0.7, 1.0, 1.5, 2.5])
def test_intervals_cover_where_they_were_short_enough(half_width: float) -> None:
    """Near 1.0, where the stop lies between the first look and the last, is where plain t intervals fail."""
    scores = studies(3_000, LOOKS[-1], seed=81, gains=0.5)
    plan = for_precision(LOOKS)
    verdicts = [settle(d, plan, half_width) for d in scores[:, 1] - scores[:, 0]]
    as_stated(np.array([not v.interval.low <= 0.5 <= v.interval.high for v in verdicts]))
    assert all(v.interval.half_width <= half_width for v in verdicts if v.reason == "precision")


@pytest.mark.parametrize("half_width", [0.7, 1.0, 1.5])
def test_intervals_cover_where_a_study_went_on_because_they_were_too_wide(half_width: float) -> None:
    scores = studies(3_000, 9, seed=85, gains=0.5)
    plan = for_precision(range(3, 10), ends=(5,))
    assert plan.critical[:3] == for_precision((3, 4, 5)).critical
    verdicts = [settle(d, plan, half_width) for d in scores[:, 1] - scores[:, 0]]
    as_stated(np.array([not v.interval.low <= 0.5 <= v.interval.high for v in verdicts]))
    assert all(v.interval.half_width <= half_width for v in verdicts if v.reason == "precision")


@pytest.mark.parametrize(("gain", "fewer"), [(3.0, 3.0), (5.0, 5.0)])
def test_stopping_early_decides_as_ten_replicates_do(gain: float, fewer: float) -> None:
    d = np.diff(studies(1_500, LOOKS[-1], seed=91, gains=gain)[:, :2], axis=1)[:, 0]
    plan = spending(LOOKS)
    verdicts = [decide(x, plan) for x in d]
    fixed = paired_t(d)
    same = [(v.outcome == "better") == (p <= 0.05) for v, p in zip(verdicts, fixed.p, strict=True)]
    assert np.mean(same) >= 0.97
    assert np.mean([v.pairs for v in verdicts]) <= LOOKS[-1] - fewer
