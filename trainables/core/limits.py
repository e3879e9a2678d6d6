"""The CPUs, the memory and the address space that this process may use.

A container, a batch system or a shell may allow less than the machine has: cgroups, affinity, `ulimit`.
"""

from __future__ import annotations

import os
import resource
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import psutil

from trainables.core.errors import UserError

_LEAST_ADDRESS_SPACE = 12 * 2**30  # bytes: with 9 GB (`ulimit -v`) Ray's libraries could not be mapped

_PROC = Path("/proc/self")
_CGROUP = Path("/sys/fs/cgroup")


class Limit(NamedTuple):
    """A limit (CPUs or bytes) and what sets it."""

    value: float
    source: str


def cpus() -> Limit:
    """The CPUs that this process may use: the least of affinity (`taskset`, cpusets) and cgroup quotas."""
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
    """The memory that this process and its children may use, bytes: the machine's, or a cgroup's limit."""
    limits = [Limit(psutil.virtual_memory().total, "this machine")]
    limits += [Limit(value, str(file)) for value, file, _ in _memory_limits()]
    return min(limits, key=lambda limit: limit.value)


def memory_left() -> float:
    """The part of `memory` that is free now, bytes. Pages that the kernel can drop count as free."""
    left = [float(psutil.virtual_memory().available)]
    left += [value - used for value, _, used in _memory_limits()]
    return max(0.0, min(left))


def check_address_space() -> None:
    """Raise `UserError` where `ulimit -v` is too small for Ray and torch. Called before they are imported."""
    space, _ = resource.getrlimit(resource.RLIMIT_AS)
    if space != resource.RLIM_INFINITY and space < _LEAST_ADDRESS_SPACE:
        raise UserError(
            "memory",
            f"`ulimit -v` allows {space / 2**30:.1f} GiB of address space a process, and Ray and "
            f"torch need {_LEAST_ADDRESS_SPACE / 2**30:.0f} GiB",
            expected="`ulimit -v unlimited` in the shell that starts raykd",
        )


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
    """The number in a file of a cgroup; None where there is none, or it stands for no limit."""
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
