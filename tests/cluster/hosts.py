"""Hosts that are really apart, on one machine: network namespaces on a bridge, with an sshd each.

    python tests/cluster/hosts.py up
    python tests/cluster/hosts.py exec 1 hostname
    python tests/cluster/hosts.py down

Host 0 is the laptop, hosts 1 to 3 are the cluster's. Each has its own address, process ids, host name, home,
/tmp and /dev/shm; `/srv` is one folder that the cluster's hosts share and the laptop does not see. Everything
else is this machine's file system, so that its Python is there too. Needs root. Nothing is kept in memory or
in a file: `down` finds what there is by its names, also what a crash left.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

FOLDER = Path("/var/tmp/raykd-hosts")  # not below /tmp or the home, which the hosts have of their own
BRIDGE = "rkhosts"
NETWORK = "198.18.77"  # of the block that is set aside for tests between networks
COUNT = 4  # the laptop, and three
KEY = FOLDER / "key"
SHARED = FOLDER / "shared"  # what the cluster's hosts see as /srv
OWN = ("/tmp", "/root")  # hidden by a folder of the host's own
SSHD = """\
Port 22
HostKey {folder}/host_key
AuthorizedKeysFile {folder}/key.pub
StrictModes no
UsePAM no
PermitRootLogin prohibit-password
PidFile none
PrintMotd no
"""


def missing() -> str:
    """Why this machine cannot make hosts, or nothing."""
    if os.geteuid() != 0:
        return "network namespaces need root"
    tools = {
        tool: _which(tool) for tool in ("ip", "unshare", "nsenter", "sshd", "ssh", "ssh-keygen", "rsync")
    }
    absent = [tool for tool, found in tools.items() if found is None]
    if absent:
        return f"{', '.join(absent)} not found: apt-get install openssh-server iproute2 rsync"
    probe = f"rkprobe{os.getpid()}"  # several may ask at once
    try:
        _run("unshare", "-n", "-m", "-p", "-u", "-f", "mount", "-t", "proc", "proc", "/proc")
        _run("ip", "netns", "add", probe)
    except subprocess.CalledProcessError as error:
        return f"this machine makes no namespaces: {error.stderr.strip() or error}"
    _run("ip", "netns", "del", probe)
    return ""


def address(host: int) -> str:
    """The host's address on the bridge."""
    return f"{NETWORK}.{10 + host}"


def home(host: int) -> Path:
    """The host's /root, as this machine sees it."""
    return FOLDER / str(host) / "root"


@contextlib.contextmanager
def hosts() -> Iterator[None]:
    """The hosts for as long as the block runs. One at a time on a machine: another waits."""
    lock = os.open(FOLDER.parent, os.O_RDONLY)  # a folder that is there anyway: no file is left behind
    fcntl.flock(lock, fcntl.LOCK_EX)
    try:
        up()
        yield
    finally:
        down()
        os.close(lock)


def up() -> None:
    """Make all hosts, after removing what is left of others."""
    down()
    SHARED.mkdir(parents=True)
    for name in ("key", "host_key"):
        _run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(FOLDER / name))
    (FOLDER / "sshd_config").write_text(SSHD.format(folder=FOLDER))
    Path("/run/sshd").mkdir(exist_ok=True)  # where sshd gives up its rights
    _run("ip", "link", "add", BRIDGE, "type", "bridge")
    _run("ip", "link", "set", BRIDGE, "up")
    for host in range(COUNT):
        home(host).mkdir(parents=True)
        for file in Path("/etc/skel").iterdir():
            shutil.copy(file, home(host))
        start(host)


def start(host: int) -> None:
    """Switch a host on, also after `kill`: its home is as it was, its /tmp empty."""
    name, wire = f"rk{host}", f"rkw{host}"
    folder = FOLDER / str(host)
    shutil.rmtree(folder / "tmp", ignore_errors=True)
    (folder / "tmp").mkdir(mode=0o1777)
    if name not in _names():
        _run("ip", "netns", "add", name)
        _run("ip", "link", "add", wire, "type", "veth", "peer", "name", "eth0", "netns", name)
        _run("ip", "link", "set", wire, "master", BRIDGE, "up")
        _run("ip", "-n", name, "address", "add", f"{address(host)}/24", "dev", "eth0")
        for device in ("lo", "eth0"):
            _run("ip", "-n", name, "link", "set", device, "up")
        # Ray takes the address from which it would go to the internet.
        _run("ip", "-n", name, "route", "add", "default", "via", address(0 if host else 1))
    # As Debian writes it: a host's own name is an address on which nobody else reaches it.
    (folder / "hosts").write_text(f"127.0.0.1 localhost\n127.0.1.1 {name}\n")
    script = [f"hostname {name}", "mount --make-rprivate /", "mount -t proc proc /proc"]
    for needed in _needed():
        inside = folder / needed.relative_to("/")
        script += [
            f"mkdir -p {shlex.quote(str(inside))}",
            shlex.join(["mount", "--bind", str(needed), str(inside)]),
        ]
    script += [f"mount --rbind {folder}{own} {own}" for own in OWN]
    script += ["mount -t tmpfs tmpfs /dev/shm", f"mount --bind {folder}/hosts /etc/hosts"]
    script += [f"mount --bind {SHARED} /srv"] if host else []
    script += [f"cd /root; exec {_which('sshd')} -D -E /tmp/sshd.log -f {FOLDER}/sshd_config"]
    inside_it = ["ip", "netns", "exec", name, "unshare", "-m", "-p", "-u", "-f", "--kill-child"]
    subprocess.Popen(
        [*inside_it, "sh", "-ec", "\n".join(script)],
        env=_environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        start_new_session=True,
    )
    deadline = time.monotonic() + 20
    while _init(host) is None or execute(host, "test", "-e", "/tmp/sshd.log").returncode:
        if time.monotonic() > deadline:
            raise RuntimeError(f"host {host} does not start")
        time.sleep(0.05)


def _needed() -> list[Path]:
    """What the hosts need of the folders that theirs hide: Python, its packages, this checkout.

    The outermost folders alone: what lies in one of them comes with it.
    """
    folders = {Path(sys.prefix), Path(sys.base_prefix), Path(__file__).resolve().parents[2]}
    hidden = [folder for folder in folders if any(folder.is_relative_to(own) for own in OWN)]
    return sorted(folder for folder in hidden if not any(above in hidden for above in folder.parents))


def kill(host: int) -> None:
    """End every process of a host at once. Its address stays, and refuses what comes."""
    for pid in processes(host):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    deadline = time.monotonic() + 20
    while processes(host):
        if time.monotonic() > deadline:
            raise RuntimeError(f"processes of host {host} do not die")
        time.sleep(0.02)


def link(host: int, state: str) -> None:
    """Pull the host's cable (`down`), or plug it in (`up`)."""
    _run("ip", "link", "set", f"rkw{host}", state)


def command(host: int, *arguments: str) -> list[str]:
    """What runs `arguments` on the host, in its home."""
    inside = ["nsenter", "-t", str(_init(host)), "-m", "-p", "-n", "-u"]
    # The folder is changed by the host's own `env`: `nsenter --wd` would go to this machine's.
    settings = (f"{name}={value}" for name, value in _environment().items())
    return [*inside, "env", "-i", "--chdir=/root", *settings, *arguments]


def execute(host: int, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a command on the host, past its sshd."""
    return subprocess.run(command(host, *arguments), capture_output=True, text=True, check=False)


def down() -> None:
    """Remove all hosts and everything of theirs."""
    for host in range(COUNT):
        if f"rk{host}" in _names():
            kill(host)
            _run("ip", "netns", "del", f"rk{host}")
        if Path(f"/sys/class/net/rkw{host}").exists():  # else it went with the namespace
            with contextlib.suppress(subprocess.CalledProcessError):
                _run("ip", "link", "del", f"rkw{host}")
    if Path("/sys/class/net", BRIDGE).exists():
        _run("ip", "link", "del", BRIDGE)
    shutil.rmtree(FOLDER, ignore_errors=True)


def left() -> list[str]:
    """What there still is of hosts, by name: nothing after `down`."""
    links = [link.name for link in Path("/sys/class/net").iterdir() if link.name.startswith("rk")]
    mounts = [
        line.split()[1] for line in Path("/proc/mounts").read_text().splitlines() if str(FOLDER) in line
    ]
    running = []
    for process in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            if str(FOLDER) in process.read_text():
                running.append(process.parent.name)
    names = [name for name in _names() if name.startswith("rk")]
    return [*names, *links, *mounts, *running, *([str(FOLDER)] if FOLDER.exists() else [])]


def processes(host: int, name: str = "") -> list[int]:
    """The host's processes by their numbers here: all, or those of one program."""
    found = []
    for pid in map(int, _run("ip", "netns", "pids", f"rk{host}").split()):
        with contextlib.suppress(OSError):
            if not name or Path(f"/proc/{pid}/comm").read_text().strip() == name:
                found.append(pid)
    return found


def _init(host: int) -> int | None:
    """The process that is number 1 on the host, by its number here."""
    for pid in processes(host):
        with contextlib.suppress(OSError):
            status = Path(f"/proc/{pid}/status").read_text()
            numbers = next(line for line in status.splitlines() if line.startswith("NSpid:")).split()[1:]
            if len(numbers) == 2 and numbers[1] == "1":
                return pid
    return None


def _names() -> list[str]:
    return [line.split()[0] for line in _run("ip", "netns", "list").splitlines()]


def _environment() -> dict[str, str]:
    """Nothing of this machine's settings."""
    path = f"{Path(sys.executable).parent}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    return {"HOME": "/root", "USER": "root", "TERM": "xterm", "LANG": "C.UTF-8", "PATH": path}


def _which(tool: str) -> str | None:
    return shutil.which(tool, path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin")


def _run(*arguments: str) -> str:
    return subprocess.run(arguments, check=True, capture_output=True, text=True).stdout


def main(arguments: list[str]) -> int:
    """The command line: `up`, `down`, `exec N CMD...`, `kill N`, `start N`, `link N up|down`."""
    verb, *rest = arguments or ["help"]
    reason = missing()
    if reason:
        print(reason, file=sys.stderr)
        return 1
    if verb == "up":
        up()
        for host in range(COUNT):
            print(f"host {host}  {address(host)}  {'the laptop' if host == 0 else 'ssh -i ' + str(KEY)}")
    elif verb == "down":
        down()
    elif verb == "exec" and len(rest) > 1:
        line = rest[1] if len(rest) == 2 else shlex.join(rest[1:])
        return subprocess.run(command(int(rest[0]), "bash", "-c", line), check=False).returncode
    elif verb in ("kill", "start") and len(rest) == 1:
        {"kill": kill, "start": start}[verb](int(rest[0]))
    elif verb == "link" and len(rest) == 2:
        link(int(rest[0]), rest[1])
    else:
        print(__doc__)
        return 2
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
