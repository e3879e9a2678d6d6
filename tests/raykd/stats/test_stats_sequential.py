"""Stopping rules: boundaries against what is known exactly; what a verdict must and must not depend on."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from benchmark_statistics import anytime
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import integrate
from scipy import stats as scipy_stats

from raykd.stats.boundaries import Plan, for_precision, spending
from raykd.stats.paired import paired_t
from raykd.stats.sequential import at_looks, chance_of_answer, decide, decide_all, settle
from trainables.core.errors import UserError

NAN = math.nan
LOOKS = (3, 4, 6, 8)
_differences = st.lists(st.floats(-2, 4).map(lambda x: round(x, 2)), min_size=1, max_size=10)


def with_t(t: float, pairs: int) -> np.ndarray:
    """Differences of sd 1 whose t statistic is this."""
    pattern = np.linspace(-1, 1, pairs)
    return np.asarray(pattern / pattern.std(ddof=1) + t / math.sqrt(pairs))


@pytest.mark.parametrize("alpha", [0.05, 0.0125])
def test_a_single_look_is_student_s_t(alpha: float) -> None:
    quantile = scipy_stats.t.isf(alpha / 2, 4)
    assert for_precision((5,), alpha=alpha).critical == pytest.approx((quantile,))
    (critical,) = spending((5,), alpha=alpha).critical
    assert quantile <= critical <= 1.01 * quantile  # a little to the safe side


def test_spending_spends_what_it_says() -> None:
    """What the first look may claim is known exactly: alpha (n_1 / n_K)^3 of Student's t."""
    plan = spending(LOOKS)
    assert 2 * scipy_stats.t.sf(plan.critical[0], 2) == pytest.approx(0.05 * (3 / 8) ** 3, rel=0.05)
    t = np.abs(at_looks(np.random.default_rng(8).standard_normal((200_000, 8)), LOOKS).t)
    passed = np.logical_or.accumulate(t >= plan.critical, axis=1).mean(axis=0)
    assert passed == pytest.approx(0.05 * (np.array(LOOKS) / 8) ** 3, abs=0.0015)


def test_a_look_without_enough_to_spend_leaves_it_to_the_next() -> None:
    plan = spending(range(3, 21), alpha=0.005)
    assert plan.critical[0] == math.inf and plan.critical[-1] < 4
    assert decide(with_t(1e6, 3), plan).outcome == "open"


@pytest.mark.parametrize(("pairs", "scale"), [(6, 1.0), (10, 0.5), (20, 2.0)])
def test_the_anytime_boundary_is_where_the_bayes_factor_is_one_over_alpha(pairs: int, scale: float) -> None:
    """The factor as its definition has it: noncentral t averaged over the prior, over central t."""
    (critical,) = anytime((pairs,), scale=scale).critical

    def weighted(effect: float) -> float:
        shifted = scipy_stats.nct.pdf(critical, pairs - 1, effect * math.sqrt(pairs))
        return float(shifted * scipy_stats.norm.pdf(effect, scale=scale))

    marginal, _ = integrate.quad(weighted, -6 * scale, 6 * scale, limit=200)
    assert marginal / scipy_stats.t.pdf(critical, pairs - 1) == pytest.approx(1 / 0.05, rel=1e-4)


def test_anytime_says_nothing_where_no_t_would_do() -> None:
    assert anytime((2, 3, 4), alpha=0.01).critical[0] == math.inf


@pytest.mark.parametrize("looks", [[], [1, 3], [3, 3], [5, 4]])
@pytest.mark.parametrize("plan", [spending, anytime, for_precision])
def test_a_plan_needs_rising_looks(plan: type, looks: list[int]) -> None:
    with pytest.raises(UserError, match="looks"):
        plan(looks)


def test_at_looks_is_the_t_test_of_the_first_pairs() -> None:
    d = np.random.default_rng(0).normal(1, 1, 9)
    d[[1, 4]] = NAN
    found = at_looks(d, LOOKS)
    there = d[np.isfinite(d)]
    for k, n in enumerate((3, 4, 6)):
        wanted = scipy_stats.ttest_1samp(there[:n], 0)
        assert (found.pairs[k], found.t[k], found.p[k]) == pytest.approx((n, wanted.statistic, wanted.pvalue))
    assert found.pairs[3] == 7 and math.isnan(found.t[3])


@given(_differences, _differences)
@settings(max_examples=60)
def test_a_verdict_stays_and_turns_and_leaves_failures_out(first: list[float], more: list[float]) -> None:
    for rule in (
        lambda d: decide(d, spending(LOOKS), margin=1.5, futility=0.05),
        lambda d: settle(d, for_precision(LOOKS), 1.0, margin=1.5),
    ):
        verdict = rule(first)
        with_failures = rule([x for d in first for x in (NAN, d)])
        for other in (with_failures, rule(first + more)) if verdict.stopped else (with_failures,):
            assert other.interval == pytest.approx(verdict.interval)
            assert replace(other, mean=0, interval=None) == replace(verdict, mean=0, interval=None)
        turned = rule([-d for d in first])
        assert (turned.reason, turned.pairs) == (verdict.reason, verdict.pairs)
        swap = {"better": "worse", "worse": "better"}
        assert turned.outcome == swap.get(verdict.outcome, verdict.outcome)
        assert verdict.pairs in (0, *LOOKS) and verdict.pairs <= len(first)
        if verdict.outcome in swap:
            assert (verdict.interval.low > 0) == (verdict.outcome == "better")


def test_decide_by_hand() -> None:
    plan = Plan((3, 6), (9.0, 3.0), 0.05)
    early = decide(with_t(9.5, 3), plan)
    assert (early.outcome, early.reason, early.pairs) == ("better", "sign", 3)
    half = 9 / math.sqrt(3)
    assert early.interval == pytest.approx((early.mean - half, early.mean + half))
    assert decide(with_t(8.5, 3), plan).reason == "running"
    assert decide([1.0, 2.0], plan).pairs == 0
    six = with_t(-3.1, 6)
    late = decide(six[[0, 5, 1, 4, 2, 3]], plan)
    assert (late.outcome, late.reason, late.pairs) == ("worse", "sign", 6)
    small = decide(with_t(0.2, 6), plan)
    assert (small.outcome, small.reason) == ("open", "exhausted")
    # Half-width 3 / sqrt 6 = 1.22 about 0.08: inside a margin of 1.4.
    assert decide(with_t(0.2, 6), plan, margin=1.4).outcome == "similar"


def test_settle_by_hand() -> None:
    plan = Plan((3, 6), (4.0, 3.0), 0.05)
    assert settle(with_t(50, 3), plan, 2.0).reason == "running"  # 4 / sqrt 3 = 2.31, however clear the sign
    short = settle(with_t(50, 3), plan, 2.4)
    assert (short.outcome, short.reason, short.pairs) == ("better", "precision", 3)
    six = with_t(0.2, 6)[[0, 5, 1, 4, 2, 3]]
    assert settle(six, plan, 1.0).reason == "exhausted"
    assert settle(six, plan, 1.3, margin=1.4).outcome == "similar"


def test_equal_differences_claim_nothing_but_their_grain_can_settle() -> None:
    plan = spending(LOOKS)
    assert decide([0.5] * 8, plan, margin=5.0) == replace(decide([0.5] * 8, plan), reason="exhausted")
    assert decide([0.5] * 8, plan).outcome == "open"
    assert decide([0.0] * 8, plan, margin=1.0, step=0.3).reason == "margin"
    assert settle([0.0] * 8, for_precision(LOOKS), 0.5, step=0.3).reason == "precision"


def test_the_chance_of_an_answer_is_the_posterior_predictive_s() -> None:
    """Drawn the long way round: variance, mean, the missing pairs; the last look's sd kept, as it says."""
    plan, rng, n, mean, sd = spending((5, 12)), np.random.default_rng(2), 5, 0.4, 1.1
    variance = sd**2 * (n - 1) / rng.chisquare(n - 1, 100_000)
    centre = rng.normal(mean, np.sqrt(variance / n))
    rest = rng.normal(centre, np.sqrt(variance / 7))
    total = (5 * mean + 7 * rest) / 12
    half = plan.critical[-1] * sd / math.sqrt(12)
    sign = np.abs(total) > half
    assert chance_of_answer(mean, sd, n, plan) == pytest.approx(sign.mean(), abs=0.006)
    margin = half + 0.2
    either = sign | (np.abs(total) < 0.2)
    assert chance_of_answer(mean, sd, n, plan, margin) == pytest.approx(either.mean(), abs=0.006)


def test_futility_stops_where_nothing_will_come_of_it() -> None:
    plan = spending(range(3, 11))
    flat = np.array([0.1, -1.1, 1.0, -0.2, 0.9, -0.8, 0.3, -0.3, 0.6, -0.6])
    assert decide(flat, plan).pairs == 10
    stopped = decide(flat, plan, futility=0.1)
    assert (stopped.outcome, stopped.reason) == ("open", "futile") and stopped.pairs < 10
    assert decide(flat[: stopped.pairs - 1], plan, futility=0.1).reason == "running"


def test_an_arm_with_a_sign_hands_its_share_on() -> None:
    """|t| = 2.9 on six pairs passes 2.57 (alpha 5 %) and not 3.16 (2.5 %)."""
    clear, close, flat = with_t(30, 6), with_t(2.9, 6), with_t(0.1, 6)
    first, second = decide_all([clear, close], (6,))
    assert (first.outcome, second.outcome) == ("better", "better")
    assert second.interval.low < 0  # the interval stays the one for two arms
    assert second.interval.half_width == pytest.approx(scipy_stats.t.isf(0.0125, 5) / math.sqrt(6), rel=0.01)
    assert [v.outcome for v in decide_all([flat, close], (6,))] == ["open", "open"]
    assert [v.outcome for v in decide_all([close], (6,))] == ["better"]
    assert decide_all(np.empty((0, 6)), (6,)) == []
    assert paired_t(close).p == pytest.approx(2 * scipy_stats.t.sf(2.9, 5))


def test_an_arm_that_was_stopped_keeps_its_verdict() -> None:
    stopped = np.r_[with_t(40, 4), [NAN] * 4]
    going = np.random.default_rng(0).normal(0, 1, 8)
    first, second = decide_all([stopped, going], LOOKS)
    alone = decide(with_t(40, 4), spending(LOOKS, alpha=0.025))
    assert first == alone and first.outcome == "better" and first.pairs <= 4
    assert second.pairs == 8
