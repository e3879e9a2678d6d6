"""Intervals over runs and images cover what they say, and equal recipes are seldom called different."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import special, stats

from raykd.stats.comparison import holm
from raykd.stats.evaluation import Difference, Runs, differences, score_interval, wilson

Array = np.ndarray


def outcomes(
    rng: np.random.Generator, runs: int, easy: Array, of_run: float, of_both: float, mean: float = 1.0
) -> Array:
    """Right or wrong, (runs, images): each image, each run and each pair of them has its own difficulty."""
    run = rng.normal(0, of_run, (runs, 1))
    both = rng.normal(0, of_both, (runs, len(easy)))
    return (rng.random(both.shape) < special.expit(mean + easy + run + both)).astype(float)


def runs_of(hits: Array, labels: Array | None = None, seeds: bool = True) -> Runs:
    """As results are gathered."""
    scores = 100 * hits.mean(axis=1)
    if labels is not None:
        scores = np.array(
            [100 * np.mean([row[labels == c].mean() for c in np.unique(labels)]) for row in hits]
        )
    return Runs(scores, hits, labels, tuple(range(len(hits))) if seeds else None)


def true_score(of_run: float, of_image: float, of_both: float) -> float:
    spread = math.sqrt(of_run**2 + of_image**2 + of_both**2)
    values, weights = np.polynomial.hermite_e.hermegauss(80)
    return 100 * float((special.expit(1.0 + spread * values) * weights).sum() / weights.sum())


@pytest.mark.parametrize(
    ("runs", "images", "of_run"), [(2, 200, 0.3), (3, 200, 0.3), (3, 1000, 0.3), (3, 200, 0.0), (5, 200, 0.1)]
)
def test_the_interval_covers_other_runs_and_other_images(runs: int, images: int, of_run: float) -> None:
    rng, studies = np.random.default_rng(0), 400
    truth = true_score(of_run, 2.0, 1.0)
    covered = 0
    for _ in range(studies):
        interval, over = score_interval(runs_of(outcomes(rng, runs, rng.normal(0, 2.0, images), of_run, 1.0)))
        covered += interval.low <= truth <= interval.high
        assert over == "runs and images"
    assert stats.binomtest(covered, studies, 0.95, alternative="less").pvalue > 0.01, covered / studies


def test_the_bootstrap_over_runs_and_images_would_not() -> None:
    """Why there is none: it is too short where runs differ more than images do."""
    rng, studies, truth = np.random.default_rng(1), 150, true_score(0.3, 2.0, 1.0)
    covered = 0
    for _ in range(studies):
        hits = outcomes(rng, 3, rng.normal(0, 2.0, 1000), 0.3, 1.0)
        means = [
            100 * hits[rng.integers(3, size=3)][:, rng.integers(1000, size=1000)].mean() for _ in range(100)
        ]
        low, high = np.quantile(means, [0.025, 0.975])
        covered += low <= truth <= high
    assert covered / studies < 0.9


@pytest.mark.parametrize("runs", [2, 3, 5])
def test_equal_recipes_are_called_different_in_at_most_alpha_of_all_tables(runs: int) -> None:
    """An A/A table: three tasks, and three arms against a base that is one of their kind."""
    rng, tables, called = np.random.default_rng(2), 200, 0
    for _ in range(tables):
        pairs = []
        for _ in range(3):
            easy = rng.normal(0, 2.0, 200)
            base, *arms = (runs_of(outcomes(rng, runs, easy, 0.2, 1.0)) for _ in range(4))
            pairs += [(arm, base) for arm in arms]
        called += any(found.p_holm <= 0.05 for found in differences(pairs))
    assert stats.binomtest(called, tables, 0.05, alternative="greater").pvalue > 0.01, called / tables


def test_two_equal_networks_are_called_different_in_at_most_alpha_of_all_tables() -> None:
    rng, tables, called = np.random.default_rng(3), 400, 0
    for _ in range(tables):
        easy = rng.normal(0, 2.0, 150)
        pairs = [
            (
                runs_of(outcomes(rng, 1, easy, 0, 1.0), seeds=False),
                runs_of(outcomes(rng, 1, easy, 0, 1.0), seeds=False),
            )
            for _ in range(3)
        ]
        called += any(found.p_holm <= 0.05 for found in differences(pairs))
    assert stats.binomtest(called, tables, 0.05, alternative="greater").pvalue > 0.01, called / tables


def test_the_same_networks_do_not_differ() -> None:
    rng = np.random.default_rng(4)
    for runs in (1, 3):
        same = runs_of(outcomes(rng, runs, rng.normal(0, 2.0, 100), 0.2, 1.0))
        (found,) = differences([(same, same)])
        assert found.mean == 0 and found.p_holm == 1


def test_a_difference_is_found_and_pairing_helps() -> None:
    rng = np.random.default_rng(5)
    easy = rng.normal(0, 2.0, 500)
    base, better = outcomes(rng, 3, easy, 0.05, 0.3), outcomes(rng, 3, easy, 0.05, 0.3, mean=2.5)
    (paired,) = differences([(runs_of(better), runs_of(base))])
    (apart,) = differences([(runs_of(better[:, rng.permutation(500)]), runs_of(base))])
    assert paired.p_holm < 0.05 and paired.over == "runs and images" and paired.pairs == 3
    assert paired.mean == pytest.approx(100 * (better.mean() - base.mean()))
    assert paired.interval.low < paired.mean < paired.interval.high
    assert paired.interval.half_width < apart.interval.half_width


def test_p_and_interval_agree() -> None:
    rng = np.random.default_rng(6)
    for _ in range(50):
        easy = rng.normal(0, 2.0, 100)
        one, other = (runs_of(outcomes(rng, 3, easy, 0.3, 1.0)) for _ in range(2))
        for alpha in (0.05, 0.3):
            (found,) = differences([(one, other)], alpha)
            assert (found.p <= alpha) == (not found.interval.low <= 0 <= found.interval.high)


def test_one_network_is_wilsons_and_two_are_mcnemars() -> None:
    hits = np.array([[1.0] * 80 + [0.0] * 20])
    interval, over = score_interval(runs_of(hits, seeds=False))
    assert over == "images" and interval == wilson(0.8, 100)
    low, high = stats.binomtest(80, 100).proportion_ci(method="wilson")
    assert interval == pytest.approx((100 * low, 100 * high))
    other = hits.copy()
    other[0, 70:80] = 0  # ten more are wrong, none is right instead
    (found,) = differences([(runs_of(hits, seeds=False), runs_of(other, seeds=False))])
    assert found.p == pytest.approx(2 * 0.5**10) and found.mean == pytest.approx(10)
    assert found.over == "images" and found.interval.low > 0


def test_all_right_is_no_certainty() -> None:
    for runs in (1, 3):
        interval, _ = score_interval(runs_of(np.ones((runs, 50))))
        assert interval.high == 100 and 90 < interval.low < 95, "as Wilson's"


def test_a_single_network_is_compared_with_every_run() -> None:
    rng = np.random.default_rng(7)
    easy = rng.normal(0, 2.0, 300)
    student, teacher = outcomes(rng, 3, easy, 0.2, 1.0), outcomes(rng, 2, easy, 0, 0.1)
    (found,) = differences([(runs_of(student), runs_of(teacher, seeds=False))])
    assert found.pairs == 3 and found.mean == pytest.approx(100 * (student.mean() - teacher.mean()))


def test_only_shared_seeds_make_pairs() -> None:
    one = Runs(np.array([70.0, 72.0, 90.0]), seeds=(0, 1, 2))
    other = Runs(np.array([71.0, 69.5]), seeds=(1, 0))
    (found,) = differences([(one, other)])
    assert found.pairs == 2 and found.mean == pytest.approx(0.75) and found.over == "runs"
    plain = stats.ttest_rel([70.0, 72.0], [69.5, 71.0])
    assert found.p == pytest.approx(plain.pvalue, rel=1e-6)
    (nothing,) = differences([(one, Runs(np.array([1.0]), seeds=(9,)))])
    assert nothing.pairs == 0 and math.isnan(nothing.p)


def test_holm_is_over_all_pairs_that_can_be_judged() -> None:
    clear = Runs(np.array([70.0, 70.1, 69.9]), seeds=(0, 1, 2))
    lower = Runs(np.array([60.0, 60.2, 59.9]), seeds=(0, 1, 2))
    alone = Runs(np.array([50.0]))
    found: list[Difference] = differences([(clear, lower), (lower, clear), (alone, alone), (clear, alone)])
    assert math.isnan(found[2].p) and math.isnan(found[2].p_holm), "two single networks without outcomes"
    assert [each.p_holm for each in found] == pytest.approx(holm([each.p for each in found]), nan_ok=True)
    assert max(found[at].p_holm / found[at].p for at in (0, 1, 3)) > 2


def test_a_mean_over_classes_may_stand_on_either_side() -> None:
    """Of a row where every image is right both means are the same, so it may come without classes."""
    labels = np.array([0] * 180 + [1] * 20)
    hits = np.concatenate([np.arange(180) % 10 > 0, np.arange(20) % 2 > 0])[None].astype(float)
    whole = Runs(np.array([100.0]), np.ones((1, 200)), None, (0,))
    (found,) = differences([(whole, runs_of(hits, labels))])
    (other,) = differences([(runs_of(hits, labels), whole)])
    assert found.mean == pytest.approx(-other.mean) == pytest.approx(30)
    assert found.interval.low < 30 < found.interval.high
    assert found.interval.half_width == pytest.approx(other.interval.half_width)


def test_a_mean_over_classes_has_the_classes_as_strata() -> None:
    """The smaller class has as much weight, so the interval is longer than that of the plain mean."""
    rng, labels = np.random.default_rng(8), np.array([0] * 180 + [1] * 20)
    hits = (rng.random((1, 200)) < 0.8).astype(float)
    by_class, over = score_interval(runs_of(hits, labels))
    plain, _ = score_interval(runs_of(hits))
    assert over == "images" and by_class.half_width > 1.3 * plain.half_width
    parts = [hits[0, labels == c] for c in (0, 1)]
    error = 100 * math.sqrt(sum(part.var(ddof=1) / len(part) for part in parts)) / 2
    assert by_class.half_width == pytest.approx(stats.t.isf(0.025, 198) * error, rel=1e-6)
