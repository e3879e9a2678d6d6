"""Checks before anything is spent: is everything here that a sweep will need, and if not, what mends it.

Each check is a function that looks at one thing, changes nothing and returns a `Check`; none raises. What
runs a whole Ray is in `ray_start.py`.
"""

from __future__ import annotations

import importlib
import os
import platform
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from raykd.doctor.check import Check
from raykd.doctor.ray_start import check_ray
from raykd.lanes import capacity
from raykd.storage.folders import origin_of
from trainables.core.errors import UserError
from trainables.core.files import cache_folder
from trainables.core.limits import cpus, memory_left

if TYPE_CHECKING:
    from raykd.spec.sweep import SweepSpec
    from raykd.storage.remote import Remote

GIB = 2**30
_NEED_DISK = 2 * GIB  # a quickstart's checkpoints, decoded images and Ray's logs, with room
_NEED_SHM = capacity.OBJECT_STORE  # below this Ray's object store goes to disk
_PACKAGES = ("torch", "torchvision", "timm", "ray", "optuna", "pyarrow", "tensorboard")


def examine(storage: Path, spec: SweepSpec | None = None, ray: bool = True) -> list[Check]:
    """Every check of this machine and of what `spec` needs; `ray` False leaves out starting Ray."""
    return list(checks(storage, spec, ray))


def checks(storage: Path, spec: SweepSpec | None = None, ray: bool = True) -> Iterator[Check]:
    """The same, one by one as they are done."""
    yield check_python()
    yield check_packages()
    yield check_torchvision()
    yield check_gpu()
    yield check_threads()
    yield check_memory(spec)
    yield check_shared_memory()
    yield check_cache()
    yield check_storage(storage)
    yield check_disk(storage)
    if spec is not None:
        yield from check_spec(spec)
        yield check_workers(spec)
    yield check_stale_cluster()
    if ray:
        yield check_ray()


def check_python() -> Check:
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
    try:
        torch, ops = importlib.import_module("torch"), importlib.import_module("torchvision.ops")
        box = torch.tensor([[0.0, 0.0, 1.0, 1.0]])
        ops.nms(box, torch.ones(1), 0.5)
    except Exception as error:
        return Check(
            "torch and torchvision",
            False,
            f"do not work together: {first_line(error)}",
            "install both from one index: `pip install --force-reinstall torch torchvision`",
        )
    build = torch.version.cuda and f"CUDA {torch.version.cuda}"
    return Check(
        "torch and torchvision", True, f"torch built for {build or 'the CPU'}, compiled operators load"
    )


def check_gpu() -> Check:
    """Does torch see the GPUs of this machine, and can it compute on them?"""
    try:
        torch = importlib.import_module("torch")
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        for device in range(count):
            torch.ones(8, 8, device=f"cuda:{device}").mm(
                torch.ones(8, 8, device=f"cuda:{device}")
            ).sum().item()
        names = [torch.cuda.get_device_name(device) for device in range(count)]
    except Exception as error:
        mend = "a torch that fits the driver and the GPU: https://pytorch.org/get-started"
        return Check("GPU", False, f"torch cannot use it: {first_line(error)}", mend)
    if count:
        return Check(
            "GPU", True, f"{', '.join(names)}; each worker takes one, unless `workers.gpus` says other"
        )
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
        return Check(
            "threads", None, f"{said}: more threads than CPUs slow each other down", "unset OMP_NUM_THREADS"
        )
    return Check("threads", True, said)


def check_memory(spec: SweepSpec | None) -> Check:
    """Does the memory that this process may use hold a lane, and how many?"""
    from raykd.spec.sections import WorkersSpec

    name, workers = "memory", spec.workers if spec is not None else WorkersSpec()
    try:
        room = capacity.room(workers)
    except UserError as error:
        return Check(name, False, str(error), "what the message says")
    said = f"{room.said}: room for {room.lanes} lane{'s' * (room.lanes > 1)}"
    if memory_left() < capacity.need(workers):
        return Check(name, None, f"{said}, too little now", "end what runs here beside it")
    return Check(name, True, said)


def check_cache() -> Check:
    """Can the user's cache be written?"""
    name = "cache"
    try:
        folder = cache_folder().absolute()
        with tempfile.TemporaryDirectory(prefix=".raykd-doctor-", dir=_existing(folder)):
            return Check(name, True, f"{folder} can be written")
    except UserError as error:
        return Check(name, False, str(error), "RAYKD_CACHE=DIR")
    except OSError as error:
        return Check(name, False, f"{folder} cannot be written: {error.strerror}", "RAYKD_CACHE=DIR")


def check_shared_memory(folder: Path = Path("/dev/shm")) -> Check:
    """Has Ray's object store room in shared memory? In containers it is 64 MB unless asked for."""
    name = "shared memory"
    if not folder.is_dir():
        return Check(name, None, f"there is no {folder}: Ray uses its temporary folder, which is slower")
    usage = shutil.disk_usage(folder)
    said = f"{usage.free / GIB:.2g} of {usage.total / GIB:.2g} GiB free in {folder}"
    if usage.free < _NEED_SHM:
        return Check(
            name, None, f"{said}: Ray will use the disk instead", "start the container with --shm-size=8g"
        )
    return Check(name, True, said)


def check_storage(storage: Path) -> Check:
    """Can sweeps be written there: new files, renames over old ones, fsync, locks?"""
    name, place, origin = "storage", _existing(storage), origin_of(storage)
    if origin is not None:
        return _asked(name, lambda: _try_remote(origin.remote))
    mend = "another folder: `--storage DIR`"
    try:
        with tempfile.TemporaryDirectory(prefix=".raykd-doctor-", dir=place) as folder:
            problem = _try_files(Path(folder))
    except OSError as error:
        return Check(name, False, f"{place} cannot be written: {error.strerror}", mend)
    if problem:
        return Check(name, False, f"{place} {problem}", mend + " on a local disk, or NFS with locks")
    return Check(name, True, f"{storage}: files, renames and locks work")


def check_disk(storage: Path, need: int = _NEED_DISK) -> Check:
    """Is there room, in bytes, where sweeps go?"""
    place = _existing(storage)
    free = shutil.disk_usage(place).free
    said = f"{free / GIB:.1f} GiB free in {place}"
    if free < need:
        mend = f"make room for at least {need / GIB:.1f} GiB, or choose another folder with --storage"
        return Check("disk", False, said, mend)
    return Check("disk", True, said)


def check_spec(spec: SweepSpec) -> Iterator[Check]:
    """Does this sweep make sense, is its data there, can its teacher be read?"""
    from raykd.spec.validate import validate
    from trainables.data.data_sets import check_data
    from trainables.methods import load_method
    from trainables.planning.teacher_check import check_teacher

    def trial_data() -> str:
        trial = spec.trial({}, spec.seeds[0])
        facts = check_data(trial.data)
        return f"{trial.data.name}: {facts.train_images} images to train on, {facts.classes} classes"

    def trial_teacher() -> str:
        said = []
        for method in spec.methods:
            trial = spec.trial({"method": method}, spec.seeds[0])
            check_teacher(trial.teacher, load_method(method).needs)
            if trial.teacher is None:
                said.append(f"{method} needs none")
            elif trial.teacher.checkpoint is not None:
                said.append(f"{trial.teacher.checkpoint} reads as a {trial.teacher.arch}")
            else:
                said.append(f"a {trial.teacher.arch} will be trained")
        return "; ".join(dict.fromkeys(said))

    def whole() -> str:
        remarks = validate(spec)
        return "; ".join(remarks) or f"{spec.name}: every setting can work"

    yield _asked("data", trial_data)
    yield _asked("teacher", trial_teacher)
    yield _asked("spec", whole)


def check_workers(spec: SweepSpec) -> Check:
    """Can what `run` would use here hold a lane: this machine, or the cluster that it would join?"""
    from raykd.doctor.compare import check_room

    try:
        from raykd.lanes.cluster import LOCAL, connected, live_nodes, ray_address, this_machine

        address = ray_address(None)
        if address == LOCAL:
            here = this_machine()
            return check_room(spec, [here], here["Resources"], autoscales=False)
        with connected(address):
            import ray

            from raykd.lanes.autoscaler import autoscales

            return check_room(spec, live_nodes(), ray.available_resources(), autoscales())
    except UserError as error:
        return Check("workers", False, str(error), "mend that, or give sweeps `--address local`")
    except Exception as error:  # a Ray that is broken
        mend = "`raykd doctor` without a spec looks at Ray; a cluster is joined where RAY_ADDRESS says so"
        return Check("workers", False, f"Ray cannot say what is here: {first_line(error)}", mend)


def check_stale_cluster(folder: Path | None = None) -> Check:
    """Which Ray cluster would sweeps join from here, and can it be joined?

    RAY_ADDRESS says so, or else Ray's address file, in `folder` or where Ray looks for it.
    """
    name = "Ray's address file"
    try:
        from raykd.lanes import joining
        from raykd.lanes.cluster import LOCAL, ray_address
        from raykd.storage import owners

        found, address = joining.noted(folder), joining.running_here(folder)
        if folder is None and os.environ.get("RAY_ADDRESS"):
            name, address = "Ray cluster", ray_address(None)
        elif found is None:
            return Check(name, True, "no cluster was left behind")
        elif found.uid != os.geteuid():
            said = f"{found.path} is {owners.user(found.uid)}'s: sweeps start a Ray of their own"
            return Check(name, None, said)
        elif address is None:
            said = f"{found.path} names a cluster that is gone ({found.address}): sweeps start their own"
            return Check(name, None, said, f"rm {found.path}")
        if address == LOCAL:
            return Check(name, True, "sweeps start a Ray of their own")
        remarks = joining.look(address).remarks
        said = f"a Ray cluster of yours is running at {address}; sweeps will join it"
        return Check(name, None if remarks else True, "; ".join([said, *remarks]))
    except UserError as error:
        return Check(name, False, str(error), "mend that, or give sweeps `--address local`")
    except Exception as error:  # a Ray that is broken
        return Check(name, False, f"Ray cannot say: {first_line(error)}", "look at the check of `ray`")


def _asked(name: str, question: Callable[[], str]) -> Check:
    """What the user's own files say: their mistakes come with the way to mend them."""
    try:
        return Check(name, True, question())
    except UserError as error:
        return Check(
            name, False, str(error), f"correct `{error.field}`" if error.field else "correct the spec"
        )


def _try_remote(remote: Remote) -> str:
    remote.check()
    remote.check_writable()
    return f"{remote.uri}: can be listed, read and written"


def _try_files(folder: Path) -> str | None:
    import fcntl

    old, new = folder / "old", folder / "new"
    for path, text in ((old, "old"), (new, "new")):
        with path.open("w") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
    new.replace(old)
    if old.read_text() != "new" or new.exists():
        return "renames a file without replacing the old one"
    with old.open("r+") as first, old.open("r+") as second:
        fcntl.flock(first, fcntl.LOCK_EX)
        try:
            fcntl.flock(second, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return None
    return "gives a lock to two at once"


def _existing(path: Path) -> Path:
    """`path`, or the nearest folder above it that is there."""
    path = path.absolute()
    while not path.exists():
        path = path.parent
    return path


def first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
