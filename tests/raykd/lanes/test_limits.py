"""What this process may use of its machine is read where it is set."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from collections.abc import Iterator
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import psutil
import pytest
from command import raykd

from raykd.doctor import machine, places
from raykd.lanes import capacity, own_ray
from raykd.spec.sections import WorkersSpec
from trainables.core import limits as machine_limits
from trainables.core.errors import UserError

GIB = capacity.GIB


@pytest.fixture
def cgroups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty tree of cgroups, and a process that is in none of them."""
    monkeypatch.setattr(machine_limits, "_PROC", tmp_path / "proc")
    monkeypatch.setattr(machine_limits, "_CGROUP", tmp_path / "cgroup")
    (tmp_path / "proc").mkdir()
    (tmp_path / "cgroup").mkdir()
    return tmp_path


def write(root: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n")


# (files, memory, what is left of it, CPUs); None: the machine's own
TREES: dict[str, tuple[dict[str, str], float | None, float | None, int | None]] = {
    "none": ({"proc/cgroup": ""}, None, None, None),
    "version 2, unlimited": (
        {"proc/cgroup": "0::/user", "cgroup/user/memory.max": "max", "cgroup/user/cpu.max": "max 100000"},
        None,
        None,
        None,
    ),
    "version 2": (
        {
            "proc/cgroup": "0::/job/step",
            "cgroup/job/step/memory.max": str(GIB),
            "cgroup/job/step/memory.current": str(GIB // 2),
            "cgroup/job/step/memory.stat": f"anon 1\ninactive_file {GIB // 4}",
            "cgroup/job/step/cpu.max": "150000 100000",
        },
        GIB,
        0.75 * GIB,
        1,
    ),
    "a limit further up": (
        {
            "proc/cgroup": "0::/job/step",
            "cgroup/job/memory.max": str(2 * GIB),
            "cgroup/job/memory.current": "0",
            "cgroup/job/step/memory.max": "max",
            "cgroup/job/cpu.max": "50000 100000",
        },
        2 * GIB,
        2 * GIB,
        1,
    ),
    "a container that sees the host's path": (
        {"proc/cgroup": "0::/docker/0123", "cgroup/memory.max": str(GIB), "cgroup/memory.current": "0"},
        GIB,
        GIB,
        None,
    ),
    "version 1": (
        {
            "proc/cgroup": "4:memory:/slurm/job\n3:cpu,cpuacct:/slurm/job\n0::/",
            "cgroup/memory/slurm/job/memory.limit_in_bytes": str(GIB),
            "cgroup/memory/slurm/job/memory.usage_in_bytes": str(GIB),
            "cgroup/memory/slurm/job/memory.stat": f"total_inactive_file {GIB // 2}",
            "cgroup/cpu,cpuacct/slurm/job/cpu.cfs_quota_us": "100000",
            "cgroup/cpu,cpuacct/slurm/job/cpu.cfs_period_us": "100000",
        },
        GIB,
        0.5 * GIB,
        1,
    ),
    "version 1, unlimited": (
        {
            "proc/cgroup": "4:memory:/\n3:cpu:/",
            "cgroup/memory/memory.limit_in_bytes": "9223372036854771712",
            "cgroup/cpu/cpu.cfs_quota_us": "-1",
            "cgroup/cpu/cpu.cfs_period_us": "100000",
        },
        None,
        None,
        None,
    ),
}


@pytest.mark.parametrize("name", TREES)
def test_limits_of_cgroups(name: str, cgroups: Path) -> None:
    files, memory, left, cpus = TREES[name]
    write(cgroups, files)
    host = psutil.virtual_memory()
    assert machine_limits.memory().value == (host.total if memory is None else memory)
    if left is None:
        assert machine_limits.memory_left() == pytest.approx(host.available, rel=0.2)
    else:
        found = machine_limits.memory_left()
        assert found <= left and (found == left or left > host.available)
    assert int(machine_limits.cpus().value) == (len(os.sched_getaffinity(0)) if cpus is None else cpus)


def test_lanes_are_those_that_the_memory_holds(cgroups: Path) -> None:
    workers = WorkersSpec()
    for lanes in (1, 2, 5):
        limit = capacity.need(workers, lanes) + 0.1 * GIB
        write(
            cgroups,
            {"proc/cgroup": "0::/", "cgroup/memory.max": f"{limit:.0f}", "cgroup/memory.current": "0"},
        )
        if psutil.virtual_memory().available > limit:
            assert capacity.room(workers).lanes == lanes
    # 3 GiB, as in a small container: one lane, where two were killed again and again.
    write(cgroups, {"cgroup/memory.max": str(3 * GIB)})
    assert capacity.room(workers).lanes == 1
    write(cgroups, {"cgroup/memory.max": str(2 * GIB)})
    with pytest.raises(UserError, match=r"memory: .*memory\.max allows 2\.0 GiB, .* need about 2\.\d GiB"):
        capacity.room(workers)
    check = machine.check_memory(None)
    assert check.ok is False and "memory.max" in check.said


def in_a_shell(setting: str, code: str) -> str:
    """What a process prints that was started with a limit of the shell's."""
    command = ["bash", "-c", f'{setting} "$0" -c "$1"', sys.executable, code]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def test_the_cpus_of_an_affinity_are_counted() -> None:
    cpu = min(os.sched_getaffinity(0))
    code = (
        "from raykd.lanes import capacity; print(int(capacity.cpus().value), capacity.for_ray()['num_cpus'])"
    )
    assert in_a_shell(f"exec taskset -c {cpu}", code) == "1 1"


def test_too_little_address_space_is_refused_by_name() -> None:
    code = """
from raykd.lanes import capacity
from raykd.spec.sections import WorkersSpec
try:
    capacity.room(WorkersSpec())
except ValueError as error:
    print(error)
"""
    assert "`ulimit -v` allows 7.6 GiB of address space" in in_a_shell("ulimit -v 8000000; exec", code)


# --- temporary folders ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["RAY_TMPDIR", "TMPDIR"])
def test_a_long_temporary_folder_is_refused_before_ray_starts(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RAY_TMPDIR", raising=False)
    monkeypatch.setenv(name, "/tmp/slurm_jobdir_1355700_tmp.t0016_as_clusters_name_it")
    with pytest.raises(UserError, match=rf"{name}: too long .* 55 bytes.*RAY_TMPDIR=/tmp"):
        own_ray.temporary_folder()
    assert not Path(os.environ[name]).exists()


def test_the_longest_folder_that_is_taken_holds_ray_s_sockets(monkeypatch: pytest.MonkeyPatch) -> None:
    longest = ""
    for length in range(5, 60):
        folder = "/tmp/" + "x" * (length - 5)
        monkeypatch.setenv("RAY_TMPDIR", folder)
        try:
            own_ray.temporary_folder()
            longest = folder
        except UserError:
            break
        finally:
            if folder != "/tmp/":
                Path(folder).rmdir() if Path(folder).is_dir() else None
    path = f"{longest}/rk12345678/ray/session_2026-11-29_23-00-29_123456_{2**22}/sockets/plasma_store"
    assert 104 <= len(path) <= 107  # 107 is what Linux takes


def test_letters_that_ray_cannot_take(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_TMPDIR", raising=False)
    monkeypatch.setenv("TMPDIR", "/tmp/müller")
    assert own_ray.temporary_folder() == Path("/tmp")
    monkeypatch.setenv("RAY_TMPDIR", "/tmp/müller")
    with pytest.raises(UserError, match="RAY_TMPDIR: Ray takes ASCII letters alone"):
        own_ray.temporary_folder()


def test_a_temporary_folder_that_cannot_be_made(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_TMPDIR", "/proc/raykd")
    with pytest.raises(UserError, match="RAY_TMPDIR: cannot be written"):
        own_ray.temporary_folder()


def met(meeting: str, rank: int, answers: Any) -> None:
    import datetime

    import torch
    import torch.distributed as dist

    from raykd.lanes.group import _meet

    _meet("gloo", meeting, rank, 2, datetime.timedelta(seconds=60))
    one = torch.ones(1)
    dist.all_reduce(one)
    answers.put(one.item())
    dist.destroy_process_group()


@pytest.fixture
def odd(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "a b%20ü#?&'\""
    folder.mkdir()
    yield folder


def test_workers_meet_in_a_folder_of_any_name(odd: Path) -> None:
    context = get_context("spawn")
    answers = context.Queue()
    workers = [
        context.Process(target=met, args=(str(odd / "meeting"), rank, answers), daemon=True)
        for rank in range(2)
    ]
    for worker in workers:
        worker.start()
    assert [answers.get(timeout=120) for _ in workers] == [2.0, 2.0]
    for worker in workers:
        worker.join()


# --- homes and caches -------------------------------------------------------------------------------------


def test_a_cache_that_cannot_be_written_names_the_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    from raykd.storage.cache import ready_cache

    monkeypatch.setenv("RAYKD_CACHE", "/proc/raykd")
    with pytest.raises(UserError, match="RAYKD_CACHE: the cache cannot be written"):
        ready_cache()
    check = places.check_cache()
    assert check.ok is False and "cannot be written" in check.said


def test_need_grows_with_lanes_and_workers() -> None:
    one, two = capacity.need(WorkersSpec()), capacity.need(WorkersSpec(), lanes=2)
    assert math.isclose(one / GIB, 2.5, abs_tol=0.15) and math.isclose(two / GIB, 3.45, abs_tol=0.15)
    assert capacity.need(WorkersSpec(count=2)) > one


def test_a_refusal_for_the_cache_leaves_no_storage_behind(tmp_path: Path) -> None:
    storage = tmp_path / "sweeps"
    done = raykd("run", "quickstart", "--storage", storage, RAYKD_CACHE="/proc/raykd")
    assert done.returncode == 2 and done.stderr.startswith("raykd: RAYKD_CACHE: "), done.stderr
    assert not storage.exists()
