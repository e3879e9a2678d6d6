"""The laptop of the cluster tests: host 0 with a checkout, where a user types; and Python for the others."""

from __future__ import annotations

import contextlib
import os
import pty
import re
import shutil
import signal
import subprocess
import sys
import sysconfig
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import hosts

ROOT = Path(__file__).resolve().parents[2]
CHECKOUT = "/root/raykd"
STALE_S = 30
PIP = "[global]\nno-index = true\nno-build-isolation = false\ndisable-pip-version-check = true\n"


def until(condition: Callable[[], Any], seconds: float, said: Callable[[], str]) -> Any:
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, f"waited {seconds} s in vain: {said()[-4000:]}"
        time.sleep(0.2)
    return found


def furnish(host: int) -> None:
    """`~/raykd-env` on the host, with this machine's packages: pip finds them there and downloads nothing.

    Of its CPUs it offers one, so that two workers need two hosts. A dead driver's lock is stale sooner there.
    """
    made = hosts.execute(host, sys.executable, "-m", "venv", "--without-pip", "/root/raykd-env")
    assert made.returncode == 0, made.stderr
    folder = hosts.home(host) / "raykd-env"
    (packages,) = folder.glob("lib/python*/site-packages")
    (packages / "machine.pth").write_text(sysconfig.get_path("purelib") + "\n")
    for name, where in (("pip", "pip._internal.cli.main"), ("ray", "ray.scripts.scripts")):
        script = folder / "bin" / name
        script.write_text(
            f"#!/root/raykd-env/bin/python\nfrom {where} import main\nraise SystemExit(main())\n"
        )
        script.chmod(0o755)
    settings = hosts.home(host) / ".config" / "pip" / "pip.conf"
    settings.parent.mkdir(parents=True)
    settings.write_text(PIP)
    with (hosts.home(host) / ".bashrc").open("a") as bashrc:
        bashrc.write("""export RAY_OVERRIDE_RESOURCES='{"CPU": 1}'\n""")
        bashrc.write(f"export RAYKD_LOCK_STALE={STALE_S}\n")


class Terminal:
    """A command that runs in a terminal of the laptop's."""

    def __init__(self, arguments: Sequence[str]) -> None:
        self._ours, theirs = pty.openpty()
        line = f'cd {CHECKOUT} && exec "$@"'
        self._process = subprocess.Popen(
            hosts.command(0, "bash", "-c", line, "bash", *arguments),
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            start_new_session=True,
        )
        os.close(theirs)
        self._said = bytearray()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    @property
    def said(self) -> str:
        return self._said.decode(errors="replace")

    def wait_for(self, pattern: str, seconds: float) -> re.Match[str]:
        """The first match in what it says."""
        found: re.Match[str] = until(lambda: re.search(pattern, self.said), seconds, lambda: self.said)
        return found

    def type(self, text: str) -> None:
        os.write(self._ours, text.encode())

    def end(self, seconds: float) -> int:
        """Its exit code, once it has ended by itself."""
        code: tuple[int] = until(
            lambda: None if self._process.poll() is None else (self._process.returncode,),
            seconds,
            lambda: self.said,
        )
        self._reader.join(5)
        return code[0]

    def _read(self) -> None:
        with contextlib.suppress(OSError):  # the other side is closed
            while piece := os.read(self._ours, 65536):
                self._said += piece


class Laptop:
    """A checkout of this tree on host 0, with a key to the others and a filled-in `cluster.yaml`."""

    def __init__(self) -> None:
        folder = hosts.home(0) / "raykd"
        listed = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
        found = subprocess.run(listed, cwd=ROOT, check=True, capture_output=True, text=True).stdout
        for name in filter(None, found.split("\0")):
            if (ROOT / name).is_file() or (ROOT / name).is_symlink():
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(ROOT / name, folder / name, follow_symlinks=False)
        key = hosts.home(0) / ".ssh" / "id_ed25519"
        key.parent.mkdir(mode=0o700)
        shutil.copy(hosts.KEY, key)
        self.folder = folder

    def describe(self, head: int, workers: Sequence[int], storage: str = "/srv/sweeps") -> None:
        """Write `cluster.yaml` as a user does: the lines marked CHANGE, and no other."""
        values = {
            "head_ip:": hosts.address(head),
            "worker_ips:": f"[{', '.join(map(hosts.address, workers))}]",
            "ssh_user:": "root",
            "ssh_private_key:": "~/.ssh/id_ed25519",
            "RAYKD_STORAGE=": storage,
        }
        lines = (ROOT / "cluster.yaml").read_text().splitlines()
        for at, line in enumerate(lines):
            if "# CHANGE" in line:
                (name,) = (name for name in values if name in line)
                there = r"[^\s']+'" if name.endswith("=") else r" .*"
                new = f"{name}{values.pop(name)}'" if name.endswith("=") else f"{name} {values.pop(name)}"
                lines[at] = re.sub(re.escape(name) + there, new, line)
        assert not values, "cluster.yaml marks every line that a user must change"
        (self.folder / "cluster.yaml").write_text("\n".join(lines) + "\n")

    def terminal(self, *arguments: str) -> Terminal:
        return Terminal(arguments)

    def ray(self, *arguments: str, seconds: float = 240) -> str:
        """Run `ray ARGUMENTS` to its good end; what it said."""
        terminal = self.terminal("ray", *arguments)
        assert terminal.end(seconds) == 0, terminal.said
        return terminal.said

    def lose_connections(self) -> None:
        """End every ssh of the laptop's, as a network that breaks does."""
        for pid in hosts.processes(0, "ssh"):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
