"""A machine with two users, out of namespaces: own processes, own network, and their homes in one folder.

    with two_users() as machine:
        machine.run(A, "raykd", "run", ...)

Each of them can enter the other's home, as is usual, and the folder `temporary` takes files of both. Python
and this checkout are made reachable for both, wherever they lie. Needs root.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil

A, B = 64001, 64002
ROOT = Path(__file__).resolve().parent.parent.parent


def missing() -> str:
    """Why this machine cannot have two users, or nothing."""
    if os.geteuid() != 0:
        return "two users need root"
    absent = [tool for tool in ("unshare", "nsenter", "setpriv", "ip", "mount") if not shutil.which(tool)]
    if absent:
        return f"{', '.join(absent)} not found: apt-get install util-linux iproute2"
    probe = ["unshare", "-m", "-p", "-n", "-f", "sh", "-c", "mount -t proc proc /proc && ip link set lo up"]
    done = subprocess.run(probe, capture_output=True, text=True, check=False)
    return f"this machine makes no namespaces: {done.stderr.strip()}" if done.returncode else ""


class Machine:
    """One that runs. `folder` has the homes `home(A)` and `home(B)`, and `temporary`."""

    def __init__(self, folder: Path, init: int) -> None:
        self.folder = folder
        self.temporary = folder / "t"
        self._init = init

    def home(self, uid: int) -> Path:
        return self.folder / str(uid)

    def command(self, uid: int, *words: object, **env: str) -> list[str]:
        """What runs `words` as this user, with nothing but `env` in the environment, and any umask."""
        given = {
            "HOME": str(self.home(uid)),
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "PYTHONPATH": str(ROOT),
            "PYTHONDONTWRITEBYTECODE": "1",
            "OMP_NUM_THREADS": "1",
            "RAY_TMPDIR": str(self.temporary),
            "RAY_USAGE_STATS_ENABLED": "0",
            **env,
        }
        return [
            *("nsenter", "-t", str(self._init), "-m", "-p", "-n", f"--wd={self.folder}"),
            *("setpriv", f"--reuid={uid}", f"--regid={uid}", "--clear-groups", "env", "-i"),
            *(f"{name}={value}" for name, value in given.items()),
            *("sh", "-c", 'umask 000; exec "$@"', "sh", *map(str, words)),
        ]

    def run(
        self, uid: int, *words: object, timeout: float = 240, **env: str
    ) -> subprocess.CompletedProcess[str]:
        command = self.command(uid, *words, **env)
        return subprocess.run(command, capture_output=True, text=True, timeout=timeout, check=False)

    def start(self, uid: int, *words: object, output: Path, **env: str) -> subprocess.Popen[Any]:
        with output.open("ab") as out:
            return subprocess.Popen(self.command(uid, *words, **env), stdout=out, stderr=out)

    def processes(self, name: str | None = None) -> list[psutil.Process]:
        """All that runs on it, or what has this name."""
        mine = _namespace(self._init)
        found = [p for p in psutil.process_iter(["name"]) if _namespace(p.pid) == mine]
        return [p for p in found if name in (None, p.info["name"])]  # by then it may have ended


@contextmanager
def two_users() -> Iterator[Machine]:
    """The machine for as long as the block runs; all that runs on it ends with it."""
    folder = Path(tempfile.mkdtemp(prefix="rk2", dir="/tmp"))  # short: Ray's sockets lie below
    folder.chmod(0o755)
    for uid in (A, B):
        (folder / str(uid)).mkdir()
        (folder / str(uid)).chmod(0o755)
        os.chown(folder / str(uid), uid, uid)
    (folder / "t").mkdir()
    (folder / "t").chmod(0o1777)
    ready = folder / "ready"
    script = ["mount --make-rprivate /", "mount -t proc proc /proc", "ip link set lo up", *_reachable()]
    script += [f"touch {ready}", "exec sleep infinity"]
    namespaces = ["unshare", "-m", "-p", "-n", "-f", "--kill-child"]
    outer = subprocess.Popen([*namespaces, "sh", "-ec", "\n".join(script)], start_new_session=True)
    try:
        deadline = time.monotonic() + 30
        while not ready.exists():
            assert outer.poll() is None and time.monotonic() < deadline, "the namespaces were not made"
            time.sleep(0.05)
        ready.unlink()
        (init,) = psutil.Process(outer.pid).children()
        yield Machine(folder, init.pid)
    finally:
        outer.kill()
        outer.wait()
        shutil.rmtree(folder, ignore_errors=True)


def _namespace(pid: int) -> str:
    try:
        return str(Path(f"/proc/{pid}/ns/pid").readlink())
    except OSError:
        return ""


def _reachable() -> Iterator[str]:
    """What gives everybody a way to Python and this checkout, where a folder above keeps others out."""
    needed = {Path(sys.prefix), Path(sys.base_prefix), Path(os.path.realpath(sys.prefix)), ROOT}
    closed = {above for path in needed for above in path.parents if not above.stat().st_mode & 0o001}
    tops = sorted(path for path in closed if not closed & set(path.parents))
    yield "mount -t tmpfs -o mode=755 tmpfs /mnt"
    for number, path in enumerate(sorted(needed)):
        if any(top in path.parents for top in tops):
            yield f"mkdir /mnt/{number}; mount --bind '{path}' /mnt/{number}"
    for top in tops:
        yield f"mount -t tmpfs -o mode=755 tmpfs '{top}'"
    for number, path in enumerate(sorted(needed)):
        if any(top in path.parents for top in tops):
            yield f"mkdir -p '{path}'; mount --bind /mnt/{number} '{path}'"
