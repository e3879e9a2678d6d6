"""How well early scores predict final ones, from all trials or from those that a rule let run to the end."""

from __future__ import annotations

import math
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from raykd.stats.prediction import Prediction, prediction, predictions

SCORES = st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), min_size=3, max_size=12)


def values(found: Prediction) -> list[float]:
    return [one.value for one in (found.correlation, found.recall, found.regret)]


@given(SCORES)
def test_with_equal_weights_each_number_is_what_its_name_says(scores: list[tuple[int, int]]) -> None:
    early, final = (list(map(float, column)) for column in zip(*scores, strict=True))
    found = prediction(early, final, [2.5] * len(early), resamples=10)
    if len(set(early)) > 1 and len(set(final)) > 1:
        assert found.correlation.value == pytest.approx(stats.spearmanr(early, final)[0])
    else:
        assert math.isnan(found.correlation.value)
    best = max(1, round(len(early) / 4))
    first, last = (sorted(range(len(s)), key=lambda i, s=s: (-s[i], i))[:best] for s in (early, final))
    assert found.recall.value == pytest.approx(len({*first} & {*last}) / best)
    sets = list(combinations(range(len(early)), found.drawn))
    lost = [max(final[i] for i in of) - final[max(of, key=lambda i: (early[i], -i))] for of in sets]
    assert found.regret.value == pytest.approx(sum(lost) / len(lost))
    assert found.effective == pytest.approx(len(early))


def test_what_does_not_fit_is_refused() -> None:
    for early, final, weights in (
        ([1.0, 2.0], [1.0], None),
        ([1.0, math.nan], [1.0, 2.0], None),
        ([1.0, 2.0], [1.0, 2.0], [1.0, 0.0]),
        ([1.0, 2.0], [1.0, 2.0], [1.0]),
    ):
        with pytest.raises(ValueError, match="score"):
            prediction(early, final, weights)
    nothing = prediction([], [])
    assert nothing.trials == 0 and math.isnan(nothing.regret.value)


def test_groups_are_looked_at_alone() -> None:
    """Between the groups the early score says all, within each of them nothing or the contrary."""
    early, final = [1.0, 2.0, 3.0, 11.0, 12.0, 13.0], [3.0, 2.0, 1.0, 13.0, 12.0, 11.0]
    found = predictions(early, final, groups=["a"] * 3 + ["b"] * 3)
    assert list(found) == [None, "a", "b"]
    assert found[None].correlation.value > 0.5
    assert found["a"].correlation.value == found["b"].correlation.value == pytest.approx(-1)
    assert list(predictions(early, final, groups=["a"] * 6)) == [None]


def world(trials: int, dice: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Early and final scores of trials that nobody stops."""
    final = dice.normal(70, 5, trials)
    return final + dice.normal(0, 5, trials), final


def test_trials_that_run_on_by_chance_make_up_for_those_that_were_stopped() -> None:
    """Halving stops trials at the rung; a fifth of these runs on. The truth is that of trials not stopped."""
    share, sweeps = 0.2, 150
    many = world(200_000, np.random.default_rng(0))
    early, final = many[0].reshape(-1, 10), many[1].reshape(-1, 10)
    lost = (final.max(axis=1) - final[np.arange(len(final)), early.argmax(axis=1)]).mean()
    high = [column >= np.quantile(column, 0.75) for column in many]
    truth = np.array([stats.spearmanr(*many)[0], (high[0] & high[1]).mean() / 0.25, lost])
    weighed, naive, covered = [], [], np.zeros(3)
    for seed in range(sweeps):
        dice = np.random.default_rng(seed)
        early, final = world(120, dice)
        stopped = np.array([i > 0 and early[i] < np.median(early[:i]) for i in range(early.size)])
        seen = ~stopped | (dice.random(early.size) < share)
        weights = np.where(stopped, 1 / share, 1.0)
        found = prediction(early[seen], final[seen], weights[seen], resamples=200)
        weighed.append(values(found))
        naive.append(values(prediction(early[~stopped], final[~stopped], resamples=2)))
        for at, one in enumerate((found.correlation, found.recall, found.regret)):
            covered[at] += one.interval.low <= truth[at] <= one.interval.high
    mean, error = np.mean(weighed, axis=0), np.std(weighed, axis=0) / math.sqrt(sweeps)
    assert (np.abs(mean - truth) < 3 * error + [0.01, 0.01, 0]).all(), (mean, truth)
    naive_mean, naive_error = np.mean(naive, axis=0), np.std(naive, axis=0) / math.sqrt(sweeps)
    assert (np.abs(naive_mean - truth) > 4 * naive_error)[:2].all(), (naive_mean, truth)
    assert truth[0] - naive_mean[0] > 0.15, "the stopped ones are what the early score tells apart best"
    coverage = covered / sweeps
    assert 0.90 <= coverage[0] <= 0.99 and coverage[1] >= 0.90 and coverage[2] >= 0.83, coverage
