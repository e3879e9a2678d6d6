"""A Ray of this process's own: on loopback, with a token that is in no file, in a folder nobody else enters.

Ray by itself binds to every interface, leaves its token in the home by the umask, and gives everybody its
folder of logs and sockets, in `/tmp/ray`, which the first user who came made.
"""

from __future__ import annotations

import os
import shutil
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from raykd.lanes.apart import daemons_apart, errors_kept
from raykd.lanes.token import authentication, fresh
from raykd.process import signals
from raykd.storage.owners import replaceable
from raykd.storage.scratch import scratch_folder

LOCAL = "local"
LOOPBACK = "127.0.0.1"
_GIVEN_UP_S = 4.0  # how much longer Ray may start after a signal: on a busy machine it takes a minute
_PREFIX = "rk"  # short: Ray's sockets lie below, and their paths may have 107 letters


def remarks() -> list[str]:
    """What the user should know of the folder that a new Ray's own would lie in."""
    why = replaceable(_above())
    said = f"other users can put what they like in the place of Ray's folder: {_above()} {why}"
    return [f"{said}; RAY_TMPDIR names another"] if why else []


def _above() -> Path:
    from ray._common.utils import get_default_system_temp_dir

    return Path(get_default_system_temp_dir())


@contextmanager
def own_ray(**options: Any) -> Iterator[Any]:
    """A new Ray for as long as the block runs. Yields what `ray.init` gives; `options` go there, too."""
    import ray

    with (
        scratch_folder(_above(), _PREFIX) as folder,
        scratch_folder() as temporary,
        authentication("token", fresh()),
        errors_kept(folder / "ray"),
    ):
        try:
            # Ray sets handlers of its own for signals, and may be left half started by one.
            with (
                starting_on_loopback(),
                daemons_apart(temporary) as daemons,
                signals.cleared(lambda: _give_up(daemons, folder, temporary)),
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
            with signals.blocked():
                ray.shutdown()


def _give_up(daemons: Sequence[Any], *folders: Path) -> None:
    """End a Ray that is still starting, and remove what it has made."""
    for daemon in daemons:
        daemon.kill()
    for folder in folders:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def starting_on_loopback() -> Iterator[None]:
    """What is started inside binds to 127.0.0.1; Ray's own choice is every interface.

    The switch is the one by which Ray spares macOS and Windows their firewall's questions. Its daemons read
    it from the environment, this process when it imported Ray. NCCL has a variable of its own.
    """
    from ray._private import ray_constants

    loopback = next((name for _, name in socket.if_nameindex() if name.startswith("lo")), "lo")
    wanted = {ray_constants.ENABLE_RAY_CLUSTERS_ENV_VAR: "0", "NCCL_SOCKET_IFNAME": loopback}
    before = {name: os.environ.get(name) for name in wanted}
    enabled = ray_constants.ENABLE_RAY_CLUSTER
    os.environ.update(wanted)
    ray_constants.ENABLE_RAY_CLUSTER = False
    try:
        yield
    finally:
        ray_constants.ENABLE_RAY_CLUSTER = enabled
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
