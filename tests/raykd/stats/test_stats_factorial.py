"""Designs and effects: textbook fractions, a 2 x 2 study by hand, failures, blocks, and ranks."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats as scipy_stats

from raykd.stats.designs import fractional_factorial, full_factorial
from raykd.stats.effects import factorial_effects
from raykd.stats.ranks import rank
from trainables.core.errors import UserError

NAN = math.nan


def test_full_factorial() -> None:
    assert full_factorial([2, 3]).tolist() == [[0, 0], [0, 1], [0, 2], [1, 0], [1, 1], [1, 2]]
    with pytest.raises(UserError, match="nothing to vary"):
        full_factorial([2, 1])


@pytest.mark.parametrize(
    ("factors", "resolution", "runs", "lengths"),
    [
        # Box, Hunter and Hunter 2005, table 6.22: the fraction's size; the count of words of length 3, 4, 5.
        (3, 3, 4, (1, 0, 0)),
        (4, 4, 8, (0, 1, 0)),
        (5, 3, 8, (2, 1, 0)),
        (5, 5, 16, (0, 0, 1)),
        (6, 4, 16, (0, 3, 0)),
        (7, 3, 8, (7, 7, 0)),
        (8, 4, 16, (0, 14, 0)),
        (8, 5, 64, (0, 0, 2)),
        (11, 5, 128, (0, 0, 6)),
    ],
)
def test_fractions_are_the_textbook_s(
    factors: int, resolution: int, runs: int, lengths: tuple[int, ...]
) -> None:
    fraction = fractional_factorial(factors, resolution)
    assert fraction.runs.shape == (runs, factors) and not fraction.runs[0].any()
    assert tuple(sum(len(w) == n for w in fraction.words) for n in (3, 4, 5)) == lengths
    assert fraction.resolution >= resolution


@given(st.integers(2, 9), st.sampled_from([3, 4, 5]))
@settings(max_examples=30)
def test_aliases_are_what_the_runs_cannot_tell_apart(factors: int, resolution: int) -> None:
    """Columns of signs, multiplied out over the runs: aliases are equal or opposite, others orthogonal."""
    fraction = fractional_factorial(factors, resolution)
    signs = 2 * fraction.runs - 1
    effects = [(i,) for i in range(factors)] + list(itertools.combinations(range(factors), 2))
    for one, other in itertools.combinations(effects, 2):
        product = signs[:, list(one)].prod(axis=1) @ signs[:, list(other)].prod(axis=1)
        assert abs(product) == (len(signs) if other in fraction.aliases(one) else 0)
        if other in fraction.aliases(one):
            assert len(one) + len(other) >= fraction.resolution
    assert (signs.sum(axis=0) == 0).all()


@pytest.mark.parametrize(("factors", "resolution"), [(4, 2), (4, 6), (1, 3), (30, 3)])
def test_no_such_fraction(factors: int, resolution: int) -> None:
    with pytest.raises(UserError, match=r"resolution|factors"):
        fractional_factorial(factors, resolution)


def test_where_no_fraction_will_do_all_is_run() -> None:
    fraction = fractional_factorial(3, 4)
    assert len(fraction.runs) == 8 and fraction.aliases((0, 1)) == () and fraction.resolution == 4


def test_two_by_two_by_hand() -> None:
    """Runs 00, 01, 10, 11. Seeds add 0 and 10; means 1, 2, 4, 9: A = 6.5 - 1.5, B = 5.5 - 2.5, AB = 5 - 1.

    The second seed is off by +1, -1, -1, +1, the first by the opposite, which is AB's own pattern and leaves
    every mean; the residual is 8 x 1 (the blocks take nothing of it) on 8 - 2 - 3 = 3 degrees of freedom.
    """
    pattern = np.array([1, -1, -1, 1])
    means = np.array([1.0, 2.0, 4.0, 9.0])
    found = factorial_effects(full_factorial([2, 2]), [means - pattern, means + pattern + 10])
    assert [(e.factors, e.levels) for e in found.effects] == [((0,), (1,)), ((1,), (1,)), ((0, 1), (1, 1))]
    assert [e.estimate for e in found.effects] == pytest.approx([5, 3, 4])
    assert found.freedom == 3 and found.sd == pytest.approx(math.sqrt(8 / 3))
    # The difference of two means of 4 has variance sd^2 / 2; of differences of means of 2, four times that.
    errors = [found.sd / math.sqrt(2)] * 2 + [found.sd * math.sqrt(2)]
    assert [e.error for e in found.effects] == pytest.approx(errors)
    half = 3.182446 * errors[0]  # t_{0.975, 3} of the tables
    assert found.effects[0].interval == pytest.approx((5 - half, 5 + half), abs=1e-5)
    assert math.isnan(found.lack_of_fit)  # the model has a term for every run


@given(st.integers(0, 10_000), st.integers(2, 8))
@settings(max_examples=25)
def test_one_factor_is_the_paired_t_test(seed: int, replicates: int) -> None:
    scores = np.random.default_rng(seed).normal(70, 2, (replicates, 2))
    (effect,) = factorial_effects(full_factorial([2]), scores).effects
    wanted = scipy_stats.ttest_rel(scores[:, 1], scores[:, 0])
    assert effect.p == pytest.approx(wanted.pvalue)
    assert tuple(effect.interval) == pytest.approx(tuple(wanted.confidence_interval(0.95)))


@given(st.integers(0, 10_000))
@settings(max_examples=25)
def test_effects_are_read_off_whatever_failed_and_whatever_the_seeds_add(seed: int) -> None:
    """Scores without noise, 3 x 4 levels that interact, three trials failed: differences of cell means."""
    rng = np.random.default_rng(seed)
    cells = rng.normal(0, 1, (3, 4))
    scores = cells.ravel() + rng.normal(0, 5, (4, 1))
    scores[1:].ravel()[rng.choice(36, 3, replace=False)] = NAN
    found = factorial_effects(full_factorial([3, 4]), scores)
    estimates = {(e.factors, e.levels): e.estimate for e in found.effects}
    assert estimates[(0,), (1,)] == pytest.approx(cells[1].mean() - cells[0].mean(), abs=1e-9)
    assert estimates[(1,), (2,)] == pytest.approx(cells[:, 2].mean() - cells[:, 0].mean(), abs=1e-9)
    for one, other in itertools.product((1, 2), (1, 2, 3)):
        wanted = (cells[one, other] - cells[0, other]) - (cells[one, 0] - cells[0, 0])
        assert estimates[(0, 1), (one, other)] == pytest.approx(wanted, abs=1e-9)
    assert found.left_out == 3
    assert math.isnan(found.effects[0].p) and math.isnan(found.effects[0].interval.low)  # no scatter
    grained = factorial_effects(full_factorial([3, 4]), scores, step=0.5)
    assert grained.sd == pytest.approx(0.5 / math.sqrt(12)) and grained.effects[0].interval.half_width > 0


def test_what_lies_beyond_two_way_interactions_is_seen() -> None:
    """The F test's p is uniform where there is nothing, and small where all three factors act together."""
    design, rng = full_factorial([2, 2, 2]), np.random.default_rng(7)
    noise = rng.normal(0, 1, (300, 3, 8))
    nothing = [factorial_effects(design, y).lack_of_fit for y in noise]
    assert scipy_stats.kstest(nothing, "uniform").pvalue > 0.01
    together = [factorial_effects(design, y + 6 * design.prod(axis=1)).lack_of_fit for y in noise[:50]]
    assert np.median(together) < 0.01


def test_effects_are_those_of_statsmodels() -> None:
    formula = pytest.importorskip("statsmodels.formula.api", reason="statsmodels: a dev extra")
    import pandas

    rng = np.random.default_rng(4)
    design = full_factorial([2, 2, 2])
    scores = rng.normal(0, 1, (3, 8)) + design[:, 0] + 2 * design[:, 1] * design[:, 2]
    scores[1, 3] = scores[2, 6] = NAN
    rows = [(r, *(2 * design[i] - 1), scores[r, i]) for r in range(3) for i in range(8)]
    data = pandas.DataFrame(rows, columns=["r", "a", "b", "c", "y"]).dropna()
    fit = formula.ols("y ~ C(r) + (a + b + c) ** 2", data).fit()
    larger = formula.ols("y ~ C(r) + a * b * c", data).fit()
    found = factorial_effects(design, scores)
    for effect in found.effects:
        name = ":".join("abc"[f] for f in effect.factors)
        scale = 2 ** len(effect.factors)  # a sign goes from -1 to 1, a product of two by differences of 4
        assert effect.estimate == pytest.approx(scale * fit.params[name])
        assert effect.error == pytest.approx(scale * fit.bse[name])
        assert effect.p == pytest.approx(fit.pvalues[name])
    assert found.lack_of_fit == pytest.approx(larger.compare_f_test(fit)[1])


def test_a_fraction_names_what_it_confounds() -> None:
    fraction = fractional_factorial(4, 4)  # D = ABC
    scores = np.random.default_rng(0).normal(0, 1, (3, 8)) + 3 * fraction.runs[:, 3]
    found = factorial_effects(fraction.runs, scores)
    assert [e.factors for e in found.effects] == [(0,), (1,), (2,), (3,), (0, 1), (0, 2), (0, 3)]
    assert found.effects[4].aliases == ((2, 3),) == fraction.aliases((0, 1))
    assert found.effects[3].estimate == pytest.approx(
        scores[:, fraction.runs[:, 3] == 1].mean() - scores[:, fraction.runs[:, 3] == 0].mean()
    )


def test_what_failures_leave_undetermined_is_refused() -> None:
    scores = np.ones((3, 4))
    scores[:, 3] = NAN
    with pytest.raises(UserError, match="undetermined"):
        factorial_effects(full_factorial([2, 2]), scores)
    with pytest.raises(UserError, match="undetermined"):
        factorial_effects([[0, 0], [1, 1], [2, 2]], np.ones((2, 3)))
    alone = factorial_effects(full_factorial([2, 2]), [[1.0, 2.0, 3.0, 5.0]])
    assert alone.freedom == 0 and all(math.isnan(e.interval.low) for e in alone.effects)


@given(st.integers(0, 10_000), st.integers(3, 6), st.integers(3, 8))
@settings(max_examples=15)
def test_friedman_s_statistic_is_scipy_s(seed: int, arms: int, replicates: int) -> None:
    scores = np.random.default_rng(seed).integers(0, 6, (arms, replicates)).astype(float)
    found = rank(scores)
    wanted = scipy_stats.friedmanchisquare(*scores)
    if math.isfinite(wanted.statistic):
        assert found.statistic == pytest.approx(wanted.statistic)
    assert found.mean_ranks.sum() == pytest.approx(arms * (arms + 1) / 2)


def test_friedman_s_p_is_exact_where_it_can_be_counted_and_chi2_where_there_are_many() -> None:
    always = np.tile([[3.0], [2.0], [1.0]], (1, 3))
    assert rank(always).p == pytest.approx(6 / 6**3, abs=0.004)
    four = rank(always[:2, [0, 0, 0, 0]])
    assert four.p == pytest.approx(2 / 2**4, abs=0.008)
    assert four.critical_difference < 1 and four.groups == ((0, 1),)  # nothing is told apart without the test
    many = np.random.default_rng(2).normal(0, 1, (4, 60)) + np.array([[0.0], [0.0], [0.2], [0.3]])
    assert rank(many).p == pytest.approx(scipy_stats.friedmanchisquare(*many).pvalue, abs=0.01)
    assert rank(np.ones((3, 4))).p == 1


def test_critical_difference_and_groups_by_hand() -> None:
    """Demsar 2006, table 5: q_0.05 of four arms is 2.569, so with 12 replicates CD = 2.569 sqrt(20 / 72).

    Arms of mean rank 1.25, 1.75, 3, 4: the first two belong together, and 1.75 with 3, and 3 with 4.
    """
    scores = np.array([[4.0, 3.0, 2.0, 1.0]] * 9 + [[3.0, 4.0, 2.0, 1.0]] * 3 + [[1.0, 2.0, NAN, 4.0]]).T
    found = rank(scores)
    assert (found.replicates, found.left_out) == (12, 1)
    assert found.mean_ranks == pytest.approx([1.25, 1.75, 3, 4])
    assert found.critical_difference == pytest.approx(2.569 * math.sqrt(20 / 72), abs=1e-3)
    assert found.groups == ((0, 1), (1, 2), (2, 3))
    few = rank(scores[:, :2])
    assert few.p == pytest.approx(1 / 24, abs=0.005)  # the second replicate ranks as the first did
    assert few.groups == ((0, 1, 2, 3),)  # Friedman's test rejects, but 3 is less than 2.569 sqrt(20 / 12)
