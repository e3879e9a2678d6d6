"""The connection to Ray: the cluster that is there, or one on this machine, quietly."""

from __future__ import annotations

import logging
import os
import socket
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from io import TextIOWrapper
from pathlib import Path
from typing import Any, cast

from trainables.errors import UserError
from trainables.files import opened, own_folder
from trainables.shown import plain

# Tune's own files, tables and telemetry are switched off: the ledger and its views replace them.
_QUIET = {
    "RAY_AIR_NEW_OUTPUT": "0",
    # What the nodes' daemons say of dead workers and the like: the pool says it, in the sweep's own words.
    "RAY_DEDUP_LOGS_SKIP_REGEX": ".",
    "RAY_TRAIN_METRICS_ENABLED": "0",
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_DISABLE_AUTO_CALLBACK_SYNCER": "1",
    "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1",
    "TUNE_GLOBAL_CHECKPOINT_S": "1000000000",
    "TUNE_WARN_THRESHOLD_S": "60",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    # A lane is several processes at once; Ray's default, one start a core, makes them wait and warns.
    "RAY_worker_maximum_startup_concurrency": "8",
}


def quiet() -> None:
    """Set what makes Ray keep to itself. Before Ray is imported, so that its modules see it."""
    for name, value in _QUIET.items():
        os.environ.setdefault(name, value)


LOCAL = "local"
_LOOPBACK = "127.0.0.1"


def ray_address(asked: str | None) -> str:
    """The cluster to join: the one asked for, RAY_ADDRESS, one that `ray start` began here, or a new one."""
    quiet()
    wanted = asked or os.environ.get("RAY_ADDRESS")
    if wanted == "auto":  # Ray's word for the cluster of this machine
        return running_here() or wanted
    return wanted or running_here() or LOCAL


def this_machine() -> dict[str, Any]:
    """What a new local Ray would offer, in the form of `ray.nodes()`."""
    import torch
    from ray._private.utils import get_num_cpus

    return {"Alive": True, "Resources": {"CPU": get_num_cpus(), "GPU": torch.cuda.device_count()}}


@contextmanager
def connected(address: str, log_file: Path | None = None) -> Iterator[dict[str, Any]]:
    """Ray for as long as the block runs. Yields what it says of itself.

    It joins the cluster at `address` and leaves it running; with `LOCAL` it starts Ray here, on loopback
    alone and with its dashboard, and stops it again.
    """
    quiet()
    import ray

    refuse_silent(address)
    if log_file is not None:
        send_logs(log_file)
    common: dict[str, Any] = {"log_to_driver": False, "configure_logging": False}
    if address == LOCAL:
        with starting_on_loopback():
            # No word on include_dashboard: with True, one that a busy machine starts too slowly ends Ray.
            context: Any = ray.init(LOCAL, dashboard_host=_LOOPBACK, **common)
    else:
        context = ray.init(address, **common)
    try:
        yield dict(context.address_info)
    finally:
        ray.shutdown()


def on_loopback() -> bool:
    """Whether this process is connected to a Ray that only this machine can reach."""
    import ray

    return bool(ray.util.get_node_ip_address() == _LOOPBACK)


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


def refuse_silent(address: str) -> None:
    """`UserError` for an address at which nobody answers: Ray would wait for minutes."""
    if address == LOCAL:
        return
    host, _, port = address.removeprefix("ray://").rpartition(":")
    try:
        if not port.isdigit():
            here = "none was started on this machine by `ray start`"
            raise OSError(here if address == "auto" else "this is no HOST:PORT")
        socket.create_connection((host, int(port)), timeout=5).close()
    except OSError as error:
        expected = "HOST:PORT of a running Ray cluster, or no address for a new one here"
        raise UserError(
            "--address", f"no cluster answers ({error})", value=address, expected=expected
        ) from None


def running_here() -> str | None:
    """The address of the cluster that `ray start` began on this machine, if it still runs.

    Ray's own "auto" would also join the private cluster of another `raykd run`, and end with it.
    """
    from ray._private import services, utils

    address = utils.read_ray_address()
    return address if address and address in services.find_gcs_addresses() else None


def live_nodes() -> list[dict[str, Any]]:
    """The nodes of the cluster that are alive, as `ray.nodes()` describes them."""
    import ray

    nodes: list[dict[str, Any]] = ray.nodes()
    return [node for node in nodes if node["Alive"]]


class _QuietFile(logging.FileHandler):
    """A log that cannot be written (a full disk) is no news for the screen."""

    def _open(self) -> TextIOWrapper:
        file: Any = opened(Path(self.baseFilename), self.mode, self.encoding)
        return cast("TextIOWrapper", file)

    def handleError(self, record: logging.LogRecord) -> None: ...


class _Plain(logging.Formatter):
    """Lines that whoever reads the log in a terminal can trust."""

    def format(self, record: logging.LogRecord) -> str:
        return plain(super().format(record))


def host_names(ids: Iterable[str], nodes: Iterable[Mapping[str, Any]]) -> str:
    """The hosts of these node ids, for people; `nodes` as `live_nodes` lists them."""
    names = {node["NodeID"]: node["NodeManagerHostname"] for node in nodes}
    return ", ".join(sorted(names.get(id, id) for id in ids))


def draining_nodes() -> dict[str, float | None]:
    """The nodes that will go, a spot instance's for one: seconds from now by id, None where nobody knows."""
    from ray._private.state import state  # the only way to ask; Ray Train asks here too

    now = time.time()
    return {node: at / 1000 - now if at else None for node, at in state.get_draining_nodes().items()}


def send_logs(log_file: Path) -> None:
    """Everything that Ray and raykd log goes to a file and not to the screen."""
    own_folder(log_file.parent)
    handler = _QuietFile(log_file, encoding="utf-8")
    handler.setFormatter(_Plain("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    root = logging.getLogger()
    for old in list(root.handlers):
        if isinstance(old, logging.FileHandler):
            root.removeHandler(old)
            old.close()
    root.addHandler(handler)
    root.setLevel(logging.INFO)
    for name in list(logging.root.manager.loggerDict):
        if name.split(".")[0] == "ray":
            logger = logging.getLogger(name)
            logger.handlers.clear()
            logger.propagate = True
