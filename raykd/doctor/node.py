"""What one node of a cluster finds out about itself for `raykd doctor --address`.

`cluster.py` runs this in a fresh interpreter on every node, so that a torch that does not load, or a process
that hangs, does no harm to others. The request is JSON on standard input, the answer is the last line of
standard output.

    {"do": "look", "storage": …, "marker": …, "node": …, "spec": … or null, "plugins": …}  -> facts
    {"do": "read", "storage": …, "marker": …, "nodes": {node: token}}           -> {"unseen": [node, …]}
"""

from __future__ import annotations

import atexit
import hashlib
import json
import platform
import shutil
import sys
import tempfile
import time
import uuid
from importlib import metadata
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from raykd.process.version import version
from trainables.core.errors import first_line
from trainables.core.limits import cpus

if TYPE_CHECKING:
    from pyarrow.fs import FileSystem

    from raykd.spec.search import SearchSpec

ROOMS = ("raykd", "trainables")
_WAIT_S = 8.0  # for a file just written elsewhere: NFS remembers for 3 s that it was not there


def source_hash() -> str:
    """8 hex digits of raykd's source."""
    root, digest = Path(__file__).resolve().parents[2], hashlib.sha256()
    for room in ROOMS:
        for path in sorted((root / room).rglob("*.py")):
            digest.update(f"{path.relative_to(root).as_posix()}\0".encode() + path.read_bytes() + b"\0")
    return digest.hexdigest()[:8]


def versions() -> dict[str, str]:
    """The versions that must be the same on every node: package -> version."""
    found = {"python": platform.python_version(), "raykd": f"{version()} ({source_hash()})"}
    for name in ("ray", "torch", "torchvision", "timm", "pyarrow"):
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = "missing"
    return found


def place(storage: str) -> tuple[FileSystem, str]:
    """The filesystem of a folder or of a URI such as `s3://bucket/sweeps`, and the path in it."""
    from pyarrow import fs

    from raykd.storage.remote import Remote

    if "://" in storage:
        remote = Remote.connect(storage)
        return remote.files, remote.root
    return fs.LocalFileSystem(), storage


def write(files: FileSystem, path: str, text: str) -> None:
    """Write a file of text."""
    with files.open_output_stream(path) as stream:
        stream.write(text.encode())


def look(request: dict[str, Any]) -> dict[str, Any]:
    """The checks and facts of this node. Leaves this node's file in the storage."""
    from raykd.doctor.check import Check
    from raykd.doctor.machine import check_gpu, check_packages, check_shared_memory, check_torchvision
    from raykd.doctor.places import check_disk
    from raykd.doctor.sweep_checks import check_spec
    from raykd.lanes import plugin_node
    from raykd.spec.search import SearchSpec
    from trainables.core.files import cache_folder

    checks = [check_packages(), check_torchvision(), check_gpu(), check_shared_memory()]
    cache = check_disk(cache_folder())
    checks.append(cache._replace(name="disk", mend=cache.mend and "make room there, or set RAYKD_CACHE"))
    spec = SearchSpec.model_validate(request["spec"]) if request["spec"] else None
    if spec is not None and request["plugins"]["modules"]:
        own = Path(tempfile.mkdtemp(prefix="raykd-plugins-"))
        atexit.register(shutil.rmtree, own, ignore_errors=True)
        problem = plugin_node.unpack(request["plugins"], own)
        mend = "install it on every node, or keep its folder beside the spec, from where it is sent to them"
        modules = ", ".join(request["plugins"]["modules"])
        checks.append(Check("plugins", not problem, problem or f"{modules}: the code of the driver", mend))
        spec = None if problem else spec  # its methods, data and networks are not known here
    if spec is not None:
        checks += islice(check_spec(spec), 3)  # data, teacher, student; the last is the same on all nodes
    return {
        "versions": versions(),
        "executable": sys.executable,
        "gpus": _gpus(),
        "cpus": int(cpus().value),
        "checks": checks,
        "inputs": inputs(spec) if spec is not None else {},
        **_leave_file(request),
    }


def inputs(spec: SearchSpec) -> dict[str, str]:
    """Name -> digest of each file or folder that trials read and all nodes must have; "" if it is missing."""
    from trainables.data.sources import find_source
    from trainables.data.sources.base import Source
    from trainables.spec.trial import file_digest
    from trainables.training.teacher_file import trainings

    found = {}
    data = spec.trial({}, spec.seeds[0]).data
    source = find_source(data.name)
    if type(source).listing is not Source.listing and data.path is not None:
        folder, digest = data.path.expanduser(), hashlib.sha256()
        for path in sorted(folder.rglob("*")):
            if path.is_file():  # names and sizes: a copy made at another time is the same data
                digest.update(f"{path.relative_to(folder)}\0{path.stat().st_size}\n".encode(errors="replace"))
        found[f"data {folder}"] = digest.hexdigest() if folder.is_dir() else ""
    for trial in [
        *(spec.trial({"method": m}, spec.seeds[0]) for m in spec.methods),
        *spec.trials_with_inputs(),
    ]:
        each = [network for one in (trial, *trainings(trial)) for network in (*one.teachers, one.student)]
        for network in each:
            if network.checkpoint is not None:
                file = network.checkpoint.expanduser()
                found[f"{network.section} {file}"] = file_digest(file) if file.is_file() else ""
    return found


def read(request: dict[str, Any]) -> dict[str, Any]:
    """The nodes whose files this node does not see, or sees with another content."""
    files, root = place(request["storage"])
    unseen, deadline = dict(request["nodes"]), time.monotonic() + _WAIT_S
    while True:
        for node, token in list(unseen.items()):
            try:
                with files.open_input_stream(f"{root}/{request['marker']}/{node}") as stream:
                    if stream.read() == token.encode():
                        del unseen[node]
            except OSError:
                pass
        if not unseen or time.monotonic() > deadline:
            return {"unseen": sorted(unseen)}
        time.sleep(0.5)


def _leave_file(request: dict[str, Any]) -> dict[str, Any]:
    """Write this node's file beside the one that the driver left, which must be there already."""
    token = uuid.uuid4().hex
    try:
        files, root = place(request["storage"])
        folder = f"{root}/{request['marker']}"
        if read({**request, "nodes": {"driver": request["marker"]}})["unseen"]:
            return {"storage": "does not see what the driver has written there"}
        write(files, f"{folder}/{request['node']}", token)
    except Exception as error:
        return {"storage": f"cannot write there: {first_line(error)}"}
    return {"token": token}


def _gpus() -> int:
    """How many GPUs torch sees; the check of the same name says why it may see none."""
    try:
        import torch

        return torch.cuda.device_count()
    except Exception:
        return 0


def main() -> None:
    """Answer the request on standard input."""
    request = json.load(sys.stdin)
    answer = look(request) if request["do"] == "look" else read(request)
    print("\n" + json.dumps(answer))


if __name__ == "__main__":
    main()
