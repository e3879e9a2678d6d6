"""Threads that work on images compute alone, and leave the numbers of others as they are."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import psutil
import pytest
import torch

from trainables.core.threads import in_threads


@pytest.fixture(autouse=True)
def two_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def tasks() -> int:
    """The threads of this process, Python's and others."""
    return psutil.Process().num_threads()


def test_they_start_no_threads_of_their_own() -> None:
    large, began, told = torch.ones(1_000_000), threading.Barrier(2), []

    def work(part: slice) -> None:
        began.wait(60)  # so that each thread has one of the two slices
        (large * 2).add_(large)
        told.append((threading.current_thread().name, torch.get_num_threads()))

    (large * 2).add_(large)  # this thread's own
    before = tasks()
    for _ in range(3):
        in_threads(work, 2, 1)
    assert tasks() <= before + 2
    assert len({name for name, _ in told}) == 2 and {threads for _, threads in told} == {1}


def test_other_threads_keep_theirs() -> None:
    in_threads(lambda part: None, 4, 1)
    assert torch.get_num_threads() == 2
    seen: list[int] = []
    other = threading.Thread(target=lambda: seen.append(torch.get_num_threads()))
    other.start()
    other.join()
    assert seen == [2]


def test_every_item_once_and_errors_reach_the_caller() -> None:
    for count in (0, 1, 2, 3, 10, 101):
        done: list[int] = []
        in_threads(lambda part, done=done: done.extend(range(part.start, part.stop)), count, 3)
        assert sorted(done) == list(range(count))
    with pytest.raises(ZeroDivisionError):
        in_threads(lambda part: 1 // (part.start - 5), 10, 5)
