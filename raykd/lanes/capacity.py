"""How many lanes this machine holds, by the CPUs and the memory that this process may use of it.

Ray does not read all of these limits: under `taskset` it counts all CPUs of the machine, and in a nested
cgroup all of its memory.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import psutil

from raykd.spec.sections import WorkersSpec
from trainables.core.errors import UserError
from trainables.core.limits import check_address_space, cpus, memory, memory_left

GIB = 2**30
# Proportional set sizes, measured on the quickstart and by `benchmarks/scale.py memory`: what the driver and
# Ray's daemons take together, what each lane takes, and each of its workers with a small network.
_BASE = 1.55 * GIB
_LANE = 0.3 * GIB
_WORKER = 0.65 * GIB
# raykd passes specs and scores through Ray's object store, no tensors.
OBJECT_STORE = 128 * 2**20


class Room(NamedTuple):
    """How many lanes the memory holds, and a text that says why."""

    lanes: int
    said: str


def need(workers: WorkersSpec, lanes: int = 1) -> float:
    """The least memory, in bytes, of a sweep with so many lanes. A large network takes more."""
    return _BASE + lanes * (_LANE + workers.count * _WORKER)


def room(workers: WorkersSpec) -> Room:
    """How many lanes fit into the memory that is free on this machine before Ray is started; at least 1.

    Raises `UserError` if the memory limit is too small for one lane, or if the limit of a process's address
    space is.
    """
    check_address_space()
    limit, each = memory(), _LANE + workers.count * _WORKER
    if limit.value < need(workers):
        raise UserError(
            "memory",
            f"{limit.source} allows {_gib(limit.value)}, and Ray, the driver and one lane (workers.count: "
            f"{workers.count}) need about {_gib(need(workers))}",
            expected="a container or machine with more memory"
            + (", or `--set workers.count=1`" if workers.count > 1 else ""),
        )
    left = min(limit.value, memory_left() + psutil.Process().memory_info().rss)  # _BASE includes the driver
    lanes = int((left - _BASE) / each)
    said = f"{_gib(left)} free of {_gib(limit.value)} ({limit.source}), about {_gib(each)} a lane"
    return Room(max(1, lanes), said)


def for_ray() -> dict[str, Any]:
    """Arguments of `ray.init` for a Ray on this machine alone."""
    return {"num_cpus": int(cpus().value), "object_store_memory": OBJECT_STORE}


def _gib(value: float) -> str:
    return f"{value / GIB:.1f} GiB"
