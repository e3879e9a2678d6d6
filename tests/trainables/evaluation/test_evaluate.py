"""The examiner: who is fitted on, who is scored, and that every encoder gets the same exam."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from trainables.core.errors import UserError
from trainables.data.data_sets import DataSet, open_data
from trainables.evaluation.evaluate import Examiner, raw_pixels, spread
from trainables.spec.trial import DataSpec, ProbeSpec

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> DataSet:
    torch.set_num_threads(1)
    return open_data(DataSpec(), tmp_path_factory.mktemp("cache"))


def test_raw_pixels_score_what_was_measured_on_digits(digits: DataSet) -> None:
    metrics = Examiner(ProbeSpec(), digits, 16, CPU).evaluate(raw_pixels)
    assert list(metrics)[:3] == ["score", "score_se", "probe/ridge_5shot"]
    assert metrics["score"] == metrics["probe/ridge_5shot"]
    assert metrics["score"] == pytest.approx(80, abs=3)  # a prototype's, on another split
    assert metrics["probe/ridge"] == pytest.approx(94, abs=3)
    assert metrics["probe/knn"] == pytest.approx(97.5, abs=2)
    assert metrics["probe/ridge_1shot"] == pytest.approx(57.7, abs=4)


def test_the_search_never_sees_the_test_split_and_the_final_reading_does(digits: DataSet) -> None:
    assert digits.test is not None
    search, final = (Examiner(ProbeSpec(), digits, 16, CPU, final=final) for final in (False, True))
    assert search.held_out is digits.train and np.array_equal(search.val_ids, digits.val_ids)
    assert not set(search.fit_ids) & set(digits.val_ids)
    assert final.held_out is digits.test and len(final.val_ids) == len(digits.test)
    assert set(final.fit_ids) == set(digits.probe_ids) | set(digits.val_ids)
    seen: list[int] = []

    def encode(images: torch.Tensor) -> torch.Tensor:
        seen.append(len(images))
        return raw_pixels(images)

    assert 90 < final.evaluate(encode)["probe/ridge"] < 98
    assert sum(seen) == len(final.fit_ids) + len(digits.test)
    with pytest.raises(UserError, match="no test split"):
        Examiner(ProbeSpec(), dataclasses.replace(digits, test=None), 16, CPU, final=True)


def test_a_ceiling_on_the_images_that_are_fitted_on(digits: DataSet) -> None:
    few = Examiner(ProbeSpec(max_images=200), digits, 16, CPU)
    assert len(few.fit_ids) == 200
    assert torch.bincount(few.fit_labels).tolist() == [20] * 10


@given(labels=st.lists(st.integers(0, 4), min_size=1, max_size=60).map(np.array), most=st.integers(1, 70))
def test_spread_takes_as_many_of_each_class_as_there_are(labels: np.ndarray, most: int) -> None:
    ids = np.arange(len(labels)) * 2 + 1
    chosen = spread(ids, labels, most)
    assert len(chosen) == min(most, len(ids)) and (np.diff(chosen) > 0).all() and np.isin(chosen, ids).all()
    taken, had = (np.bincount(labels[(part - 1) // 2], minlength=5) for part in (chosen, ids))
    # A class has fewer than another one by more than one only where it has no more to give.
    assert all(taken[c] == had[c] for c in range(5) if taken[c] < taken.max() - 1)
    assert np.array_equal(chosen, spread(ids, labels, most))


def test_without_labels_what_was_trained_on_is_looked_at(digits: DataSet, tmp_path: Path) -> None:
    blind = dataclasses.replace(
        digits, classes=0, probe_ids=np.zeros(0, np.int64), val_ids=np.zeros(0, np.int64)
    )
    metrics = Examiner(ProbeSpec(score="rankme"), blind, 16, CPU).evaluate(raw_pixels)
    assert set(metrics) == {"score", "probe/rankme"} and 1 < metrics["score"] < 3 * 16 * 16


def precisions() -> tuple[str, bool, bool]:
    """Of float32 products, cuDNN's convolutions, cuBLAS's products."""
    backends = torch.backends
    return (
        torch.get_float32_matmul_precision(),
        backends.cudnn.allow_tf32,
        backends.cuda.matmul.allow_tf32,
    )


@pytest.mark.parametrize("precision, tf32", [("highest", True), ("high", True), ("highest", False)])
def test_probes_look_at_whole_float32_and_leave_the_precision_as_it_was(
    precision: str, tf32: bool, digits: DataSet
) -> None:
    before = precisions()
    seen: set[tuple[str, bool, bool]] = set()

    def encode(images: torch.Tensor) -> torch.Tensor:
        seen.add(precisions())
        return raw_pixels(images)

    def break_off(images: torch.Tensor) -> torch.Tensor:
        raise KeyboardInterrupt

    try:
        torch.set_float32_matmul_precision(precision)
        torch.backends.cudnn.allow_tf32 = tf32
        training = precisions()
        examiner = Examiner(ProbeSpec(score="rankme", record=()), digits, 16, CPU)
        examiner.evaluate(encode)
        assert seen == {("highest", False, False)}
        assert precisions() == training
        with pytest.raises(KeyboardInterrupt):
            examiner.evaluate(break_off)
        assert precisions() == training
    finally:
        torch.set_float32_matmul_precision(before[0])
        torch.backends.cudnn.allow_tf32 = before[1]
