"""A Ray of this process's own: on loopback, with a token that is in no file, in a folder nobody else enters.

Ray's defaults are not private. It binds to every interface, and its token's file in the home has the mode
that the umask gives. Its folder of logs and sockets, `/tmp/ray`, is open to all users and belongs to the one
who started Ray first.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from unittest import mock

from raykd.lanes.detached import detached_daemons, errors_logged
from raykd.lanes.token import authentication, fresh
from raykd.process import signals
from raykd.process.environment import setting
from raykd.storage.owners import replaceable
from raykd.storage.scratch import scratch_folder
from trainables.core.errors import UserError

_SOCKET = "/ray/session_2026-01-01_00-00-00_000000_4194304/sockets/plasma_store"  # the longest that Ray makes
_RANDOM = 8  # letters that `mkdtemp` puts behind a prefix
_LONGEST = 107  # bytes of a socket's path: `sun_path` of `struct sockaddr_un`, less the final zero

LOCAL = "local"
LOOPBACK = "127.0.0.1"
_DIES_S = 2.0  # for a process that was killed to be gone
_GIVEN_UP_S = 4.0  # a start may go on for so long after a signal: on a busy machine it takes a minute
_PREFIX = "rk"  # short: Ray's sockets lie below, and their paths may have 107 letters


def remarks() -> list[str]:
    """What the user should know of the folder in which a new Ray would have its files."""
    folder = temporary_folder()
    why = replaceable(folder)
    said = f"other users can put what they like in the place of Ray's folder: {folder} {why}"
    return [f"{said}; RAY_TMPDIR names another"] if why else []


@contextmanager
def own_ray(**options: Any) -> Iterator[Any]:
    """A new Ray for as long as the block runs. Yields what `ray.init` returns; `options` go to it."""
    import ray

    daemons: list[Any] = []
    with (
        scratch_folder(temporary_folder(), _PREFIX) as folder,
        signals.cleared(lambda: _kill(daemons), first=True),
        authentication("token", fresh()),
        errors_logged(folder / "ray"),
    ):
        temporary = folder / "tmp"
        temporary.mkdir()
        try:
            # Ray sets handlers of its own for signals, and may be left half started by one.
            with (
                starting_on_loopback(),
                detached_daemons(temporary, daemons),
                signals.blocked(_GIVEN_UP_S),
            ):
                # No word on include_dashboard: with True, one that a busy machine starts too slowly ends Ray.
                # Ray gives its temporary folder to everybody: it lies inside one that keeps everybody out.
                context: Any = ray.init(
                    LOCAL,
                    dashboard_host=LOOPBACK,
                    _temp_dir=str(folder / "ray"),
                    log_to_driver=False,
                    configure_logging=False,
                    **options,
                )
            yield context
        finally:
            # Before Ray ends: if a thread still calls Ray then, Ray's C++ code ends this process.
            signals.tell()
            with signals.blocked():
                ray.shutdown()
                # A start that a signal cut short is not known to Ray. What it began would write on.
                _kill(daemons)


def temporary_folder() -> Path:
    """The folder that a Ray of this process's own may use: RAY_TMPDIR, TMPDIR or /tmp, in Ray's order.

    Ray takes only ASCII letters. A TMPDIR with others is replaced by /tmp, because it is not meant for Ray
    alone; a RAY_TMPDIR with others is a `UserError`. So is a folder that cannot be written, and one whose
    path is too long for Ray's sockets.
    """
    name = next((name for name in ("RAY_TMPDIR", "TMPDIR") if os.environ.get(name)), None)
    if name == "TMPDIR" and not os.environ[name].isascii():
        name = None
    folder = Path(os.environ[name] if name else "/tmp").absolute()
    expected = "`RAY_TMPDIR=/tmp`, or another short folder of yours"
    if not str(folder).isascii():
        raise UserError(name or "/tmp", "Ray takes ASCII letters alone", value=str(folder), expected=expected)
    most = _LONGEST - len(_SOCKET) - len(_PREFIX) - _RANDOM - 1
    long = len(os.fsencode(folder))
    if long > most:
        problem = f"too long for Ray's sockets: {long} bytes, and they leave room for {most}"
        raise UserError(name or "/tmp", problem, value=str(folder), expected=expected)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(dir=folder, prefix=_PREFIX):
            pass
    except OSError as error:
        problem = f"cannot be written: {error.strerror}"
        raise UserError(name or "/tmp", problem, value=str(folder), expected=expected) from None
    return folder


def _kill(daemons: Sequence[Any]) -> None:
    """Kill Ray's daemons and what they started: agents outlive a raylet that was cut short by a minute."""
    for daemon in daemons:
        with suppress(ProcessLookupError):
            os.killpg(daemon.pid, signal.SIGKILL)  # `detached_daemons` gave each a group of its own
    for daemon in daemons:
        with suppress(subprocess.TimeoutExpired):
            daemon.wait(_DIES_S)


@contextmanager
def starting_on_loopback() -> Iterator[None]:
    """What is started inside binds to 127.0.0.1; Ray's default is every interface.

    Ray has a switch for this, which it uses on macOS and Windows because of their firewalls. Ray's daemons
    read it from the environment; this process read it when it imported Ray. NCCL has a variable of its own.
    """
    from ray._private import ray_constants

    loopback = next((name for _, name in socket.if_nameindex() if name.startswith("lo")), "lo")
    wanted = {ray_constants.ENABLE_RAY_CLUSTERS_ENV_VAR: "0", "NCCL_SOCKET_IFNAME": loopback}
    with setting(wanted), mock.patch.object(ray_constants, "ENABLE_RAY_CLUSTER", False):
        yield
