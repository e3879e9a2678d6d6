"""Threads that read images: as many as torch may use in this process, shared by all data sets."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache

import torch


def in_threads(work: Callable[[slice], None], count: int, least: int) -> None:
    """Call `work` for slices that make up `count`, in several threads. Raises what `work` raises.

    A slice has at least `least` items, so that few of them are worked through in the calling thread.
    """
    threads = torch.get_num_threads()
    size = max(least, -(-count // (2 * threads)))
    parts = [slice(start, min(start + size, count)) for start in range(0, count, size)]
    if len(parts) < 2 or threads < 2:
        work(slice(0, count))
        return
    for done in [_pool(threads).submit(work, part) for part in parts]:
        done.result()


@cache
def _pool(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads, thread_name_prefix="read")
