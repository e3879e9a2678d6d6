"""Threads that work on images: as many as torch may use in this process, shared by data and views.

Each of them computes alone. With threads of its own each would make more OpenMP threads than there are cores.
GNU's OpenMP then lets all threads of the process sleep between any two operations, those of the training
step, too: four times slower on two cores (`benchmarks/input.py`).
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache

import torch
from threadpoolctl import ThreadpoolController


def in_threads(work: Callable[[slice], None], count: int, least: int) -> None:
    """Call `work` for slices that make up `count`, in several threads. Raises what `work` raises.

    A slice has at least `least` items, so that a few of them are worked through by one thread.
    """
    threads = torch.get_num_threads()
    size = max(least, -(-count // (2 * threads)))
    parts = [slice(start, min(start + size, count)) for start in range(0, count, size)]
    if threads < 2:
        work(slice(0, count))
        return
    for done in [_pool(threads).submit(work, part) for part in parts]:
        done.result()


def compute_alone() -> None:
    """Let this thread use no further threads for torch's operations."""
    torch.get_num_threads()  # torch sets a thread's number when it first asks for it
    # Not `torch.set_num_threads`: threads that begin later would have that number, too.
    _libraries().limit(limits=1, user_api="openmp")


@cache
def _libraries() -> ThreadpoolController:
    return ThreadpoolController()


@cache
def _pool(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads, thread_name_prefix="images", initializer=compute_alone)
