"""The order of an epoch, and the thread that reads ahead."""

from __future__ import annotations

import contextlib
import threading

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from trainables.data.data_sets import open_data
from trainables.data.loader import fetch, order
from trainables.data.store_images import Images
from trainables.spec.trial import DataSpec, OptimSpec


@given(
    n=st.integers(24, 200),
    share=st.integers(2, 4),
    accumulate=st.integers(1, 3),
    workers=st.integers(1, 2),
    epoch=st.integers(1, 5),
)
def test_workers_share_the_batches_that_one_would_have(
    n: int, share: int, accumulate: int, workers: int, epoch: int
) -> None:
    ids = np.arange(n) * 3 + 1
    optim = OptimSpec(batch_size=share * accumulate * workers, accumulate=accumulate)
    whole = order(ids, 7, epoch, optim.model_copy(update={"accumulate": 1}), 0, 1)
    assert len(whole) == n // optim.batch_size
    seen = np.concatenate(whole)
    assert len(np.unique(seen)) == len(seen) and np.isin(seen, ids).all()
    parts = [order(ids, 7, epoch, optim, rank, workers) for rank in range(workers)]
    assert all(len(batch) == share for part in parts for batch in part)
    assert np.array_equal(np.concatenate([b for turn in zip(*parts, strict=True) for b in turn]), seen)


def test_every_epoch_and_seed_has_its_own_order() -> None:
    optim = OptimSpec(batch_size=16)
    orders = {
        np.concatenate(order(np.arange(64), s, e, optim, 0, 1)).tobytes() for s in (-1, 0, 1) for e in (1, 2)
    }
    assert len(orders) == 6


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Images:
    return open_data(DataSpec(), tmp_path_factory.mktemp("cache")).train


def threads() -> int:
    return sum(thread.name == "loader" for thread in threading.enumerate())


def test_batches_come_in_order_and_the_thread_ends(images: Images) -> None:
    batches = np.arange(40).reshape(10, 4) * 7
    with contextlib.closing(fetch(images, batches, torch.device("cpu"))) as fetched:
        for (found, ids), expected in zip(fetched, batches, strict=True):
            assert (ids == expected).all() and torch.equal(found, images.take(expected))
    assert threads() == 0


def test_a_loop_that_stops_early_leaves_no_thread(images: Images) -> None:
    with contextlib.closing(fetch(images, np.zeros((100, 2), int), torch.device("cpu"))) as fetched:
        next(fetched)
    assert threads() == 0


def test_what_goes_wrong_while_reading_is_raised_where_the_batch_was_wanted(images: Images) -> None:
    batches = np.array([[1, 2], [len(images), 3], [4, 5]])
    with contextlib.closing(fetch(images, batches, torch.device("cpu"))) as fetched:
        next(fetched)
        with pytest.raises(IndexError):
            next(fetched)
    assert threads() == 0
