"""Processes that a test starts as the workers of a group."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Sequence
from typing import Any


def run_workers(worker: Callable[..., None], arguments: Sequence[tuple[Any, ...]], seconds: float) -> None:
    """Run `worker` in a process for each of these arguments. Fails if one is left waiting for `seconds`."""
    spawn = multiprocessing.get_context("spawn")
    workers = [spawn.Process(target=worker, args=given) for given in arguments]
    for process in workers:
        process.start()
    for process in workers:
        process.join(seconds)
    late = [process for process in workers if process.is_alive()]
    for process in late:
        process.kill()
        process.join()
    assert not late, "a worker was left waiting for another"
