"""Checks of this machine, before machine time is spent: is everything here that a sweep will need?

Each check is a function that looks at one thing, changes nothing and returns a `Check`, which says what
helps if it failed; none raises. `checks` runs them all, those of `places.py`, `sweep_checks.py` and
`ray_start.py` included.
"""

from __future__ import annotations

import importlib
import os
import platform
import shutil
import sys
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from raykd.doctor import places, sweep_checks
from raykd.doctor.check import Check
from raykd.doctor.ray_start import check_ray
from raykd.lanes import capacity
from raykd.spec.sections import WorkersSpec
from raykd.storage.base import Storage
from raykd.storage.open_storage import open_storage
from trainables.core.errors import UserError, first_line
from trainables.core.limits import cpus, memory_left

if TYPE_CHECKING:
    from raykd.spec.search import SearchSpec

GIB = 2**30
_NEED_SHM = capacity.OBJECT_STORE  # below this Ray's object store goes to disk
_PACKAGES = ("torch", "torchvision", "timm", "ray", "optuna", "pyarrow", "tensorboard")


def checks(storage: Storage | Path, spec: SearchSpec | None = None, ray: bool = True) -> Iterator[Check]:
    """Every check of this machine and of what `spec` needs, one by one as they are done.

    `storage` holds the sweeps; `ray` False leaves out starting Ray.
    """
    yield check_python()
    yield check_packages()
    yield check_torchvision()
    yield check_gpu()
    yield check_threads()
    yield check_memory(spec)
    yield check_shared_memory()
    yield places.check_cache()
    yield places.check_storage(storage)
    yield places.check_disk(open_storage(storage).folder)
    if spec is not None:
        yield from sweep_checks.check_plugins(spec)
        yield from sweep_checks.check_spec(spec)
        yield sweep_checks.check_workers(spec)
    yield sweep_checks.check_stale_cluster()
    if ray:
        yield check_ray()


def check_python() -> Check:
    """Is the interpreter as new as raykd's packaging file asks?"""
    said = platform.python_version()
    least = metadata.metadata("raykd")["Requires-Python"] or ""
    if not SpecifierSet(least).contains(said, prereleases=True):
        mend = "make a new environment with a newer python: `make PYTHON=python3.12 sweep`"
        return Check("python", False, f"{said} is not {least}", mend)
    return Check("python", True, f"{said}, {sys.executable}")


def check_packages() -> Check:
    """Are the packages that raykd needs installed, in the versions that its packaging file names?"""
    wrong = []
    for needed in map(Requirement, metadata.requires("raykd") or ()):
        if needed.marker is not None:  # of an extra
            continue
        try:
            version = metadata.version(needed.name)
        except metadata.PackageNotFoundError:
            wrong.append(f"{needed.name} is missing")
            continue
        for limit in needed.specifier:
            if not limit.contains(version, prereleases=True):
                how = "older than" if limit.operator == ">=" else "too new, raykd needs one before"
                wrong.append(f"{needed.name} {version} is {how} {limit.version}")
    if wrong:
        return Check("packages", False, "; ".join(wrong), f"{sys.executable} -m pip install --upgrade raykd")
    return Check("packages", True, ", ".join(f"{name} {metadata.version(name)}" for name in _PACKAGES))


def check_torchvision() -> Check:
    """Do torch and torchvision fit together? A CPU-only torch with PyPI's torchvision fails on import."""
    name = "torch and torchvision"
    try:
        torch, ops = importlib.import_module("torch"), importlib.import_module("torchvision.ops")
        box = torch.tensor([[0.0, 0.0, 1.0, 1.0]])
        ops.nms(box, torch.ones(1), 0.5)
    except Exception as error:
        mend = "install both from one index: `pip install --force-reinstall torch torchvision`"
        return Check(name, False, f"do not work together: {first_line(error)}", mend)
    build = f"CUDA {torch.version.cuda}" if torch.version.cuda else "the CPU"
    return Check(name, True, f"torch built for {build}, compiled operators load")


def check_gpu() -> Check:
    """Does torch see the GPUs of this machine, and can it compute on them?"""
    try:
        torch = importlib.import_module("torch")
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        for device in range(count):
            ones = torch.ones(8, 8, device=f"cuda:{device}")
            ones.mm(ones).sum().item()
        names = [torch.cuda.get_device_name(device) for device in range(count)]
    except Exception as error:
        mend = "a torch that fits the driver and the GPU: https://pytorch.org/get-started"
        return Check("GPU", False, f"torch cannot use it: {first_line(error)}", mend)
    if count:
        said = f"{', '.join(names)}; each worker takes one, unless `workers.gpus` says other"
        return Check("GPU", True, said)
    if Path("/proc/driver/nvidia/version").exists() and os.environ.get("CUDA_VISIBLE_DEVICES") != "":
        mend = "check `nvidia-smi`; a torch that fits the driver: https://pytorch.org/get-started"
        return Check("GPU", False, "there is an NVIDIA driver, and torch sees no GPU", mend)
    return Check("GPU", None, "none: everything runs on the CPU, in float32")


def check_threads() -> Check:
    """How many CPUs may this process use, and does OMP_NUM_THREADS fit them?"""
    limit = cpus()
    usable = int(limit.value)
    asked = os.environ.get("OMP_NUM_THREADS", "")
    said = f"{usable} CPUs ({limit.source})" + (f", OMP_NUM_THREADS={asked}" if asked else "")
    if asked.isdigit() and int(asked) > usable:
        said += ": more threads than CPUs slow each other down"
        return Check("threads", None, said, "unset OMP_NUM_THREADS")
    return Check("threads", True, said)


def check_memory(spec: SearchSpec | None) -> Check:
    """Does the memory that this process may use hold a lane, and how many?"""
    name, workers = "memory", spec.workers if spec is not None else WorkersSpec()
    try:
        room = capacity.room(workers)
    except UserError as error:
        return Check(name, False, str(error), "what the message says")
    said = f"{room.said}: room for {room.lanes} lane{'s' * (room.lanes > 1)}"
    if memory_left() < capacity.need(workers):
        return Check(name, None, f"{said}, too little now", "end what runs here beside it")
    return Check(name, True, said)


def check_shared_memory(folder: Path = Path("/dev/shm")) -> Check:
    """Has Ray's object store room in shared memory? In containers it is 64 MB unless asked for."""
    name = "shared memory"
    if not folder.is_dir():
        return Check(name, None, f"there is no {folder}: Ray uses its temporary folder, which is slower")
    usage = shutil.disk_usage(folder)
    said = f"{usage.free / GIB:.2g} of {usage.total / GIB:.2g} GiB free in {folder}"
    if usage.free < _NEED_SHM:
        mend = "start the container with --shm-size=8g"
        return Check(name, None, f"{said}: Ray will use the disk instead", mend)
    return Check(name, True, said)
