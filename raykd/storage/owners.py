"""Which user owns something on this machine: a port that answers, a file, a folder."""

from __future__ import annotations

import os
import pwd
import socket
import stat
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psutil

_LISTENS = "0A"  # the state of a socket in /proc/net/tcp
_ROOT = 0


def user(uid: int) -> str:
    """The name of a user, or the number of one without a name."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"uid {uid}"


def listener(host: str, port: int) -> int | None:
    """The uid of the process that listens at `host:port`; None if that is not known, or not this machine.

    Source: `/proc/net/tcp`, which shows every user's sockets to everybody.
    """
    here = {address.partition("%")[0] for address in _addresses_of(host, port) if _is_this_machine(address)}
    found = {address: uid for address, at, uid in _listening() if at == port}
    for address in (*here, *(("0.0.0.0", "::") if here else ())):
        if address in found:
            return found[address]
    return None


def owner(path: Path) -> int | None:
    """The uid of the owner of a file, folder or link; None if it is not there."""
    try:
        return path.lstat().st_uid
    except OSError:
        return None


def may_enter(path: Path) -> bool:
    """Whether users other than the owner and root can reach `path`: every folder above lets them pass."""
    real = Path(os.path.realpath(path))
    return all(_mode(folder) & 0o011 for folder in real.parents)


def is_anothers(uid: int | None) -> bool:
    """Whether `uid` is another user, and not root, who could do everything anyway."""
    return uid is not None and uid not in (os.geteuid(), _ROOT)


def keep_closed(session: Path) -> None:
    """Close Ray's session folder to other users, if it is this user's.

    Each process that Ray starts opens these folders to everybody. Another user could then put a socket in the
    place of Ray's, and, under a umask of 0, talk to Ray's sockets, which ask for no token. So this is called
    again and again.
    """
    with suppress(OSError):
        if owner(session) == os.geteuid() and _mode(session) & (stat.S_IRWXG | stat.S_IRWXO):
            session.chmod(0o700)
    above = session.parent  # Ray's temporary folder may be for several users, as /tmp is
    with suppress(OSError):
        mode = _mode(above)
        if owner(above) == os.geteuid() and mode & stat.S_IWOTH and not mode & stat.S_ISVTX:
            above.chmod(mode | stat.S_ISVTX)


def replaceable(folder: Path) -> str | None:
    """Why other users can rename files in a folder and put others in their place; None if they cannot."""
    uid = owner(folder)
    if is_anothers(uid):
        return f"is {user(uid or 0)}'s"
    if uid is None or uid == os.geteuid():
        return None  # `keep_closed` closes one's own
    everybody = _mode(folder) & stat.S_IWOTH and not _mode(folder) & stat.S_ISVTX
    return "is open to everybody" if everybody else None


def make_private(folder: Path) -> None:
    """Make a folder, and those above it, for this user alone, whatever the umask.

    One that is there keeps its mode. Where it cannot be made, the first write there fails, and says so.
    """
    with suppress(OSError):
        for at in (*reversed(folder.parents), folder):
            if not at.is_dir():
                at.mkdir(mode=0o700, exist_ok=True)


def _mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def _addresses_of(host: str, port: int) -> set[str]:
    with suppress(OSError):
        return {str(found[4][0]) for found in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)}
    return set()


def _is_this_machine(address: str) -> bool:
    if address.startswith("127.") or address in ("::1", "0.0.0.0", "::"):
        return True
    own = {one.address.partition("%")[0] for has in psutil.net_if_addrs().values() for one in has}
    return address.partition("%")[0] in own


def _listening() -> Iterator[tuple[str, int, int]]:
    """(address, port, uid) of every TCP socket of this machine that listens."""
    for table, family, size in (("tcp", socket.AF_INET, 4), ("tcp6", socket.AF_INET6, 16)):
        with suppress(OSError):
            for line in Path("/proc/net", table).read_text().splitlines()[1:]:
                _, local, _, state, _, _, _, uid, *_ = line.split()
                if state != _LISTENS:
                    continue
                digits, _, port = local.partition(":")
                words = [bytes.fromhex(digits[at : at + 8]) for at in range(0, size * 2, 8)]
                packed = b"".join(word[::-1] if sys.byteorder == "little" else word for word in words)
                address = socket.inet_ntop(family, packed).removeprefix("::ffff:")
                yield address, int(port, 16), int(uid)
