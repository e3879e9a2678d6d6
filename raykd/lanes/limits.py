"""What this process may use of its machine: CPUs, memory, address space; read where each limit is set.

A container, a batch system or a shell may allow less than the machine has. Ray reads some of these limits,
not all: it counts the machine's CPUs under `taskset`, and the machine's memory in a nested cgroup.
"""

from __future__ import annotations

import os
import resource
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import psutil

from raykd.spec.sections import WorkersSpec
from trainables.errors import UserError

GIB = 2**30
# Measured on the quickstart (proportional set sizes; one lane 2.9 GiB, two 4.2 GiB): what the driver and
# Ray's daemons take together, what each lane takes, and each of its workers with a small network.
_BASE = 1.55 * GIB
_LANE = 0.65 * GIB
_WORKER = 0.65 * GIB
# raykd passes specs and scores through Ray's object store, no tensors.
OBJECT_STORE = 128 * 2**20
# Below this much address space libraries cannot be mapped: `ulimit -v`, measured.
_LEAST_ADDRESS_SPACE = 12 * GIB

_PROC = Path("/proc/self")
_CGROUP = Path("/sys/fs/cgroup")


class Limit(NamedTuple):
    """How much may be used (CPUs or bytes), and what says so."""

    value: float
    source: str


class Room(NamedTuple):
    """How many lanes the memory holds, and why."""

    lanes: int
    said: str


def cpus() -> Limit:
    """The CPUs that this process may use: of its affinity (`taskset`, cpusets) and of its cgroup's quota."""
    count = os.cpu_count() or 1
    limits = [Limit(count, "this machine")]
    if hasattr(os, "sched_getaffinity"):
        limits.append(Limit(len(os.sched_getaffinity(0)), "the CPU affinity of this process"))
    for folder in _cgroup_folders("cpu"):
        quota = _quota(folder)
        if quota is not None:
            limits.append(Limit(max(1, int(quota)), f"the CPU quota of {folder}"))
    return min(limits, key=lambda limit: limit.value)


def memory() -> Limit:
    """The memory that this process and its children may use, bytes: of the machine, or of a cgroup."""
    limits = [Limit(psutil.virtual_memory().total, "this machine")]
    limits += [Limit(value, str(file)) for value, file, _ in _memory_limits()]
    return min(limits, key=lambda limit: limit.value)


def memory_left() -> float:
    """The part of `memory` that nothing uses now, bytes. What the kernel can drop counts as unused."""
    left = [float(psutil.virtual_memory().available)]
    left += [value - used for value, _, used in _memory_limits()]
    return max(0.0, min(left))


def address_space() -> Limit | None:
    """The address space that a process may have, bytes (`ulimit -v`); None where it is unlimited."""
    soft, _ = resource.getrlimit(resource.RLIMIT_AS)
    return None if soft == resource.RLIM_INFINITY else Limit(soft, "`ulimit -v`")


def need(workers: WorkersSpec, lanes: int = 1) -> float:
    """The memory that a sweep with so many lanes takes at least, bytes. A large network takes more."""
    return _BASE + lanes * (_LANE + workers.count * _WORKER)


def room(workers: WorkersSpec) -> Room:
    """The lanes that fit into the memory of this machine beside what runs there.

    Raises `UserError` where the limit holds none, or where processes may not have the address space.
    """
    space, limit, each = address_space(), memory(), _LANE + workers.count * _WORKER
    if space is not None and space.value < _LEAST_ADDRESS_SPACE:
        raise UserError(
            "memory",
            f"{space.source} allows {_gib(space.value)} of address space a process, and Ray and torch need "
            f"{_gib(_LEAST_ADDRESS_SPACE)}",
            expected="`ulimit -v unlimited` in the shell that starts raykd",
        )
    if limit.value < need(workers):
        raise UserError(
            "memory",
            f"{limit.source} allows {_gib(limit.value)}, and Ray, the driver and one lane (workers.count: "
            f"{workers.count}) need about {_gib(need(workers))}",
            expected="a container or machine with more memory"
            + (", or `--set workers.count=1`" if workers.count > 1 else ""),
        )
    lanes = int((min(limit.value, memory_left()) - _BASE) / each)
    said = f"{_gib(memory_left())} free of {_gib(limit.value)} ({limit.source}), about {_gib(each)} a lane"
    return Room(max(1, lanes), said)


def for_ray() -> dict[str, Any]:
    """What a Ray on this machine alone is told of it, as arguments of `ray.init`."""
    return {"num_cpus": int(cpus().value), "object_store_memory": OBJECT_STORE}


def _memory_limits() -> Iterator[tuple[float, Path, float]]:
    """(limit, file that sets it, use) in bytes, of this process's cgroup and of those around it."""
    for folder in _cgroup_folders("memory"):
        for limit, used, dropped in (
            ("memory.max", "memory.current", "inactive_file"),
            ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
        ):
            value = _number(folder / limit)
            if value is not None:
                taken = (_number(folder / used) or 0) - _stat(folder / "memory.stat", dropped)
                yield value, folder / limit, max(0.0, taken)


def _quota(folder: Path) -> float | None:
    """The CPUs that a cgroup may use; None without a quota."""
    try:
        quota, period = (folder / "cpu.max").read_text().split()
        return None if quota == "max" else int(quota) / int(period)
    except (OSError, ValueError):
        pass
    asked, period_us = _number(folder / "cpu.cfs_quota_us"), _number(folder / "cpu.cfs_period_us")
    return asked / period_us if asked and period_us and asked > 0 else None


def _cgroup_folders(controller: str) -> Iterator[Path]:
    """The folders of this process's cgroup and of those around it, by version 2 and by version 1.

    In a container the path may be the host's, of which only the end is mounted: then its root is read.
    """
    try:
        lines = (_PROC / "cgroup").read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, _, rest = line.partition(":")
        names, _, path = rest.partition(":")
        if names not in ("", controller) and controller not in names.split(","):
            continue
        roots = [_CGROUP / names, _CGROUP / controller] if names else [_CGROUP, _CGROUP / "unified"]
        for root in dict.fromkeys(roots):
            inner = root / path.lstrip("/")
            for folder in (inner, *inner.parents):
                if folder.is_dir():
                    yield folder
                if folder == root:
                    break


def _number(file: Path) -> float | None:
    """The number in a file of a cgroup; None where there is none or it is as good as unlimited."""
    try:
        value = float(file.read_text())
    except (OSError, ValueError):  # "max"
        return None
    return value if value < 2**62 else None


def _stat(file: Path, name: str) -> float:
    try:
        fields = dict(line.split() for line in file.read_text().splitlines())
        return float(fields.get(name, 0))
    except (OSError, ValueError):
        return 0.0


def _gib(value: float) -> str:
    return f"{value / GIB:.1f} GiB"
