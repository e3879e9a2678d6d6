"""Paired comparisons: values worked out by hand, scipy and statsmodels, and what must hold for any scores."""

from __future__ import annotations

import math

import numpy as np
import pytest
from benchmark_statistics import pooled_variance_ratio
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from scipy import stats as scipy_stats

from raykd.stats.bootstrap import bootstrap
from raykd.stats.comparison import compare_to_base, holm
from raykd.stats.improvement import probability_of_improvement
from raykd.stats.paired import interquartile_mean, paired_t, standardised_difference, variance_ratio
from raykd.stats.power import detectable_difference, paired_power

NAN = math.nan
_scores = st.floats(0, 100).map(lambda x: round(x, 3)) | st.just(NAN)
_studies = st.tuples(st.integers(1, 5), st.integers(1, 8)).flatmap(
    lambda shape: arrays.arrays(np.float64, (shape[0] + 1, shape[1]), elements=_scores)
)


def test_paired_t_by_hand() -> None:
    """Differences 1, 2, 3: mean 2, sd 1, t = 2 sqrt 3; two degrees of freedom: p = 1 - t / sqrt(t^2 + 2)."""
    (found,) = compare_to_base([[71.0, 72.0, 73.0]], [70.0, 70.0, 70.0])
    assert (found.pairs, found.left_out, found.wins, found.ties, found.losses) == (3, 0, 3, 0, 0)
    assert (found.mean, found.sd) == pytest.approx((2, 1))
    assert found.p == pytest.approx(1 - math.sqrt(6 / 7))
    half = 4.302653 / math.sqrt(3)  # t_{0.975, 2} of the tables
    assert found.interval == pytest.approx((2 - half, 2 + half), abs=1e-5)
    # d_z = 2 and J(2) = Gamma(1) / Gamma(1/2) = 1 / sqrt(pi).
    assert found.effect == pytest.approx(2 / math.sqrt(math.pi))


def test_a_failed_trial_costs_its_pair_and_is_counted() -> None:
    arms = [[71.0, NAN, 73.0, 74.0, math.inf], [NAN] * 5]
    first, second = compare_to_base(arms, [70.0, 70.0, 70.5, NAN, 70.0])
    assert (first.pairs, first.left_out, first.mean, first.wins) == (2, 3, pytest.approx(1.75), 2)
    assert first.comparisons == 1 and first.p_holm == first.p
    assert (second.pairs, second.left_out) == (0, 5)
    assert all(math.isnan(x) for x in (second.mean, second.p, second.p_holm, *second.interval))
    assert math.isnan(second.improvement.probability)


@given(_studies)
@settings(max_examples=150)
def test_the_family_agrees_with_scipy_and_with_itself(scores: np.ndarray) -> None:
    """p is ttest_rel's; an interval leaves out zero exactly where its own p is below alpha; Bonferroni's
    never does where Holm does not reject."""
    for arm, found in zip(scores[1:], compare_to_base(scores[1:], scores[0]), strict=True):
        both = np.isfinite(arm) & np.isfinite(scores[0])
        d = arm[both] - scores[0][both]
        assert found.pairs + found.left_out == len(arm)
        assert found.wins + found.ties + found.losses == found.pairs == both.sum()
        spread = d.std(ddof=1) if len(d) > 1 else 0.0
        assume(spread == 0 or spread > 1e-6)
        if len(d) < 2 or spread < 1e-6:
            assert math.isnan(found.p) and math.isnan(found.interval.low)
            continue
        wanted = scipy_stats.ttest_rel(arm[both], scores[0][both])
        assert found.p == pytest.approx(wanted.pvalue, rel=1e-5)
        assert tuple(found.interval) == pytest.approx(tuple(wanted.confidence_interval(0.95)), abs=1e-6)
        if abs(found.p - 0.05) > 1e-9:
            assert (found.p < 0.05) == (found.interval.low > 0 or found.interval.high < 0)
        if found.simultaneous.low > 0 or found.simultaneous.high < 0:
            assert found.p_holm <= 0.05
        assert found.p <= found.p_holm <= 1


def test_equal_differences_are_no_certainty() -> None:
    """Three runs, each one image of 360 better: nothing is claimed, with or without the resolution."""
    image = 100 / 360
    base = np.array([70.0, 71.0, 72.0])
    (bare,) = compare_to_base([base + image], base)
    assert math.isnan(bare.p) and math.isnan(bare.interval.low)
    (found,) = compare_to_base([base + image], base, step=image)
    assert found.sd == pytest.approx(image / math.sqrt(6))
    assert found.p == pytest.approx(1 - math.sqrt(18 / 20))  # t = sqrt 3 sqrt 6, two degrees of freedom
    assert found.interval.low < 0
    (wide,) = compare_to_base([[75.0, 71.0, 73.0]], base, step=image)
    assert wide.sd == pytest.approx(np.std([5, 0, 1], ddof=1))


def test_holm_by_hand() -> None:
    """Sorted 0.005, 0.01, 0.03, 0.04 times 4, 3, 2, 1, never falling; what has no p value does not count."""
    assert holm([0.01, 0.04, 0.03, NAN, 0.005]) == pytest.approx([0.03, 0.06, 0.06, NAN, 0.02], nan_ok=True)
    assert holm([[0.5, 0.9], [0.01, NAN]]) == pytest.approx(np.array([[1, 1], [0.01, NAN]]), nan_ok=True)
    assert np.isnan(holm([NAN, NAN])).all() and holm([]).size == 0


@pytest.mark.slow
def test_holm_is_that_of_statsmodels() -> None:
    multitest = pytest.importorskip("statsmodels.stats.multitest", reason="statsmodels: a dev extra")
    rng = np.random.default_rng(7)
    for size in range(1, 10):
        for digits in (1, 2, 17):  # with ties, and without
            p = rng.uniform(size=size).round(digits)
            assert holm(p) == pytest.approx(multitest.multipletests(p, method="holm")[1])


def test_bonferroni_intervals_beside_dunnett_s() -> None:
    """Dunnett pools the arms' variance, ours does not; with many degrees of freedom they are close."""
    rng = np.random.default_rng(3)
    base, arms = rng.normal(0, 1, 400), rng.normal(0, 1, (4, 400))
    ours = compare_to_base(arms, base)
    theirs = scipy_stats.dunnett(*arms, control=base).confidence_interval(0.95)
    for found, low, high in zip(ours, theirs.low, theirs.high, strict=True):
        assert found.simultaneous.half_width == pytest.approx((high - low) / 2, rel=0.08)
        assert found.simultaneous.half_width > found.interval.half_width


def test_no_arm_makes_no_comparison() -> None:
    assert compare_to_base(np.empty((0, 3)), np.zeros(3)) == []


def test_improvement_by_hand() -> None:
    """1 loses to 2 and 3, 3 beats 2 and ties 3: 1.5 of 4. Where two runs beat one, the sizes' mean less one
    is 1/2: the lower end solves (1 - p)^2 = t^2 p (1 - p) / 2 [1 + ((1 - p) / (2 - p) + p / (1 + p)) / 2]."""
    assert probability_of_improvement([1.0, 3.0, NAN], [2.0, 3.0]).probability == 1.5 / 4
    assert probability_of_improvement([2.0], [1.0]).interval == (0, 1)
    won = probability_of_improvement([2.0, 3.0], [1.0], alpha=0.5)  # t_{0.75, 1} = 1
    p = won.interval.low
    assert (1 - p) == pytest.approx(p / 2 * (1 + ((1 - p) / (2 - p) + p / (1 + p)) / 2))
    assert won.interval.high == 1 and won.probability == 1
    assert probability_of_improvement([1.0], [2.0, 3.0], alpha=0.5).interval == pytest.approx((0, 1 - p))
    assert math.isnan(probability_of_improvement([], [1.0]).probability)


@given(*[arrays.arrays(np.float64, st.integers(1, 9), elements=st.integers(0, 5).map(float))] * 2)
def test_improvement_is_mann_whitney_s_u_and_turns_with_its_sides(a: np.ndarray, b: np.ndarray) -> None:
    ab, ba = probability_of_improvement(a, b), probability_of_improvement(b, a)
    assert ab.probability == pytest.approx(scipy_stats.mannwhitneyu(a, b).statistic / (a.size * b.size))
    assert ab.interval.low <= ab.probability <= ab.interval.high
    assert (ba.interval.low, ba.interval.high) == pytest.approx((1 - ab.interval.high, 1 - ab.interval.low))


@pytest.mark.parametrize("n", [3, 5, 10])
def test_improvement_s_interval_covers(n: int) -> None:
    rng = np.random.default_rng(n)
    for shift in (0.0, 1.0, 2.0):
        truth = scipy_stats.norm.cdf(shift / math.sqrt(2))
        a, b = rng.normal(shift, 1, (400, n)), rng.normal(0, 1, (400, n))
        found = [probability_of_improvement(x, y).interval for x, y in zip(a, b, strict=True)]
        assert np.mean([i.low <= truth <= i.high for i in found]) >= 0.935  # 0.95 less 1.4 standard errors


def test_power_is_noncentral_t_s() -> None:
    for n, effect, alpha in [(5, 1.0, 0.05), (10, 0.9, 0.05), (20, 0.5, 0.0125)]:
        critical, shift = scipy_stats.t.isf(alpha / 2, n - 1), effect * math.sqrt(n)
        wanted = scipy_stats.nct.sf(critical, n - 1, shift) + scipy_stats.nct.cdf(-critical, n - 1, shift)
        assert paired_power(effect, n, alpha) == pytest.approx(wanted, abs=1e-6)
    assert paired_power(0.0, 2, 0.01) == pytest.approx(0.01)


@pytest.mark.parametrize(("n", "alpha"), [(2, 0.05), (3, 0.0125), (10, 0.05)])
def test_the_detectable_difference_is_found_in_four_studies_of_five(n: int, alpha: float) -> None:
    true = detectable_difference(2.0, n, alpha)
    d = np.random.default_rng(n).normal(true, 2.0, (40_000, n))
    assert (paired_t(d).p <= alpha).mean() == pytest.approx(0.8, abs=0.008)
    assert detectable_difference(4.0, n, alpha) == pytest.approx(2 * true, rel=1e-5)
    assert math.isnan(detectable_difference(1.0, 1, alpha))


def test_hedges_correction_takes_the_bias_away() -> None:
    d = np.random.default_rng(5).normal(0.8, 1.0, (50_000, 5))
    test = paired_t(d)
    raw = test.mean / test.sd
    assert raw.mean() > 0.95
    factor = standardised_difference(1.0, 1.0, 5)
    assert factor * raw.mean() == pytest.approx(0.8, abs=0.01)
    assert math.isnan(standardised_difference(1.0, 1.0, 2))


def test_interquartile_mean_by_hand() -> None:
    assert interquartile_mean([100.0, 1.0, NAN, 4.0, 2.0]) == 3.0
    assert interquartile_mean([0, 0, 3, 4, 5, 6, 90, 90.0]) == 4.5
    assert interquartile_mean([1.0, 2.0, 6.0]) == 3.0
    assert math.isnan(interquartile_mean([NAN]))


def test_the_pooled_variance_ratio_is_one_less_the_correlation_of_shrout_and_fleiss() -> None:
    # Their table 2: six targets by four judges, ICC(3, 1) = 0.71; the interval as R's irr and psych give it.
    judged = np.array([[9, 2, 5, 8], [6, 1, 3, 2], [8, 4, 6, 8], [7, 1, 2, 6], [10, 5, 6, 9], [6, 2, 4, 7]])
    ratio, interval = pooled_variance_ratio(judged.T)
    assert ratio == pytest.approx(1 - 0.7148, abs=1e-4)
    assert interval == pytest.approx((1 - 0.9459, 1 - 0.3425), abs=2e-4)
    two = np.array([[1.0, 2.0, 4.0, NAN], [2.0, 2.5, 3.0, 1.0]])
    assert pooled_variance_ratio(two)[0] == pytest.approx(variance_ratio(two[0], two[1]))
    rng, inside = np.random.default_rng(8), 0
    for _ in range(600):
        scores = rng.normal(0, 1, (1, 10)) + rng.normal(0, 1, (4, 10))  # the truth is 1/2
        low, high = pooled_variance_ratio(scores)[1]
        inside += low <= 0.5 <= high
    assert scipy_stats.binomtest(inside, 600, 0.95).pvalue > 0.001
    assert math.isnan(pooled_variance_ratio([[1.0, 2.0]])[0])


def test_variance_ratio_by_hand() -> None:
    assert variance_ratio([1.0, 2.0, 3.0, NAN], [5.0, 6.0, 7.0, 8.0]) == pytest.approx(0)
    assert variance_ratio([1.0, 2.0, 3.0], [3.0, 2.0, 1.0]) == pytest.approx(2)
    assert variance_ratio([1.0, 2.0], [1.0, 1.0]) == pytest.approx(1)
    assert math.isnan(variance_ratio([1.0, NAN], [1.0, 2.0]))


def test_bootstrap_of_a_mean_is_near_its_normal_interval_and_can_be_repeated() -> None:
    x = np.random.default_rng(1).normal(3, 2, 400)
    found = bootstrap(lambda i: [x[i].mean(), -x[i].mean()], x.size, resamples=2000)
    half = 1.96 * x.std() / math.sqrt(x.size)
    assert found.value == pytest.approx([x.mean(), -x.mean()])
    assert found.low == pytest.approx([x.mean() - half, -x.mean() - half], abs=0.02)
    assert found.high == pytest.approx([x.mean() + half, -x.mean() + half], abs=0.02)
    again = bootstrap(lambda i: [x[i].mean(), -x[i].mean()], x.size, resamples=2000)
    assert (again.low == found.low).all() and found.resamples == 2000


def test_bootstrap_leaves_out_resamples_without_an_answer() -> None:
    def varied(i: np.ndarray) -> float:
        if len(set(i)) < 2:
            raise ValueError("one trial only")
        return float("nan") if 0 not in i else 1.0

    found = bootstrap(varied, 3, resamples=300)
    # Of 27 resamples 3 have one trial only, and 6 more lack trial 0: 18 are left.
    assert 150 < found.resamples < 250 and found.low == found.high == 1.0
    none = bootstrap(lambda i: NAN, 3, resamples=5)
    assert none.resamples == 0 and np.isnan(none.low)
