"""Held-out parts: the size asked for, stratified, and decided by the seed."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainables.data.splits import few_of_each, held_out, stratified

class_sizes = st.lists(st.integers(1, 40), min_size=1, max_size=12)
shares = st.floats(0.01, 0.99)


def labels_of(sizes: list[int], seed: int = 0) -> np.ndarray:
    labels = np.repeat(np.arange(len(sizes)), sizes)
    return np.random.default_rng(seed).permutation(labels)


@given(class_sizes, shares, st.integers(-5, 2**40))
def test_size_and_stratification(sizes: list[int], share: float, seed: int) -> None:
    labels = labels_of(sizes)
    held = stratified(labels, share, seed)
    assert len(held) == held_out(len(labels), share)
    assert (np.diff(held) > 0).all() and (not len(held) or (held[0] >= 0 and held[-1] < len(labels)))
    taken = np.bincount(labels[held], minlength=len(sizes))
    if held_out(len(labels), share) == round(len(labels) * share):
        # Within one of the exact share, more where others had to be spared the loss of their last image.
        spared = sum(int(size * share) + 1 >= size for size in sizes)
        assert (np.abs(taken - np.array(sizes) * share) < 1 + spared).all()
    np.testing.assert_array_equal(held, stratified(labels, share, seed))


@given(st.lists(st.integers(2, 40), min_size=1, max_size=12), st.floats(0.01, 0.5))
def test_every_class_keeps_an_image_to_train_on(sizes: list[int], share: float) -> None:
    labels = labels_of(sizes)
    left = np.delete(labels, stratified(labels, share, 0))
    assert set(left) == set(range(len(sizes)))


def test_worked_out_by_hand() -> None:
    # A third of 10, 5 and 3 images: 3.33, 1.67 and 1.0, six in all; the last one goes to the remainder .67.
    labels = np.array([0] * 10 + [1] * 5 + [2] * 3)
    assert np.bincount(labels[stratified(labels, 1 / 3, 0)]).tolist() == [3, 2, 1]


def test_seed_decides() -> None:
    labels = np.repeat(np.arange(10), 30)
    draws = {tuple(stratified(labels, 0.3, seed)) for seed in range(5)}
    assert len(draws) == 5


@pytest.mark.parametrize("count", [0, 1])
def test_nothing_to_divide(count: int) -> None:
    assert len(stratified(np.zeros(count, np.int64), 0.5, 0)) == 0


def test_a_large_set_is_quick() -> None:
    labels = np.random.default_rng(0).integers(0, 1000, 1_000_000)
    assert len(stratified(labels, 0.01, 0)) == 10_000


@given(class_sizes, st.integers(1, 20), st.integers(0, 2**40))
def test_so_many_of_each_class_or_all_it_has(sizes: list[int], count: int, seed: int) -> None:
    labels = labels_of(sizes)
    drawn = few_of_each(labels, count, np.random.default_rng(seed))
    assert (np.diff(drawn) > 0).all()
    assert np.bincount(labels[drawn]).tolist() == [min(size, count) for size in sizes]
    np.testing.assert_array_equal(drawn, few_of_each(labels, count, np.random.default_rng(seed)))


def test_every_image_of_a_class_is_drawn_as_often() -> None:
    labels = labels_of([5, 9])
    times = np.zeros(14)
    for seed in range(2000):
        times[few_of_each(labels, 2, np.random.default_rng(seed))] += 1
    # 2,000 draws of probability 2/5 and 2/9: five standard errors.
    assert np.abs(times / 2000 - np.where(labels == 0, 2 / 5, 2 / 9)).max() < 0.055
