"""The connection to Ray: to a running cluster, or to a new Ray on this machine."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from io import TextIOWrapper
from pathlib import Path
from typing import Any, cast

from raykd.lanes import capacity, joining, own_ray
from raykd.lanes.joining import AUTO, running_here
from raykd.lanes.token import authentication
from raykd.process import signals
from raykd.storage.owners import keep_closed
from trainables.core.files import opened, own_folder
from trainables.core.safe_text import plain

# Tune's own files, tables and telemetry are switched off: the ledger and its views replace them.
QUIET = {
    "RAY_AIR_NEW_OUTPUT": "0",
    # Messages of the nodes' daemons, on dead workers for one: the pool reports these in its own words.
    "RAY_DEDUP_LOGS_SKIP_REGEX": ".",
    # Without this, a thread that calls Ray after its end would start another one, which nobody would end.
    "RAY_ENABLE_AUTO_CONNECT": "0",
    "RAY_TRAIN_METRICS_ENABLED": "0",
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_DISABLE_AUTO_CALLBACK_SYNCER": "1",
    "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1",
    "TUNE_GLOBAL_CHECKPOINT_S": "1000000000",
    "TUNE_WARN_THRESHOLD_S": "60",
    # A process that asks for no GPU sees none.
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "1",
    # A lane starts several processes at once; by default Ray starts one a core at a time, and warns.
    "RAY_worker_maximum_startup_concurrency": "8",
}


LOCAL = own_ray.LOCAL


def quiet() -> None:
    """Switch off Ray's own output and telemetry. To be called before Ray is imported, which reads it then."""
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)


def ray_address(asked: str | None) -> str:
    """The cluster to join: the one asked for, RAY_ADDRESS, one that `ray start` started here, or a new one.

    A cluster that was not asked for is joined only if it is this user's own.
    """
    quiet()
    wanted = asked or os.environ.get("RAY_ADDRESS")
    if wanted == AUTO:  # Ray's name for the cluster of this machine
        return running_here() or wanted
    return wanted or running_here() or LOCAL


def this_machine() -> dict[str, Any]:
    """The node that a new local Ray would have, in the form of `ray.nodes()`."""
    import torch

    return {
        "Alive": True,
        "Resources": {"CPU": capacity.for_ray()["num_cpus"], "GPU": torch.cuda.device_count()},
    }


@contextmanager
def connected(address: str, log_file: Path | None = None) -> Iterator[dict[str, Any]]:
    """Connected to Ray for as long as the block runs. Yields Ray's `address_info`.

    Joins the cluster at `address`, and leaves it running. With `LOCAL` it starts Ray here, on loopback alone
    and with its dashboard, and stops it again. `UserError` for a cluster that cannot be joined.
    """
    quiet()
    import ray

    if address == LOCAL:
        if log_file is not None:
            send_logs(log_file)
        # As many GPUs as torch sees: Ray's own count includes those that a torch for the CPU cannot use.
        gpus = int(this_machine()["Resources"]["GPU"])
        with own_ray.own_ray(num_gpus=gpus, **capacity.for_ray()) as started:
            yield dict(started.address_info)
        return
    entry = joining.look(address)
    if log_file is not None:
        send_logs(log_file)
    with authentication(entry.mode):
        try:
            try:
                with signals.blocked():  # Ray sets handlers of its own, and may be left half connected
                    context: Any = ray.init(address, log_to_driver=False, configure_logging=False)
            except Exception as error:
                raise joining.failed(address, error) from error
            keep_closed(session_folder())
            yield dict(context.address_info)
        finally:
            with signals.blocked():
                ray.shutdown()


def session_folder() -> Path:
    """Where the Ray that this process is connected to keeps its sockets and logs on this node."""
    from ray._private.worker import global_worker

    node: Any = global_worker.node
    return Path(node.get_session_dir_path())


def check_joinable(address: str) -> list[str]:
    """Remarks for the user on the cluster at `address`, or on a new one.

    `UserError` for a cluster that cannot be joined: Ray itself would wait for minutes, or work as another
    user.
    """
    return own_ray.remarks() if address == LOCAL else joining.look(address).remarks


def on_loopback() -> bool:
    """Whether this process is connected to a Ray that only this machine can reach."""
    import ray

    return bool(ray.util.get_node_ip_address() == own_ray.LOOPBACK)


def live_nodes() -> list[dict[str, Any]]:
    """The nodes of the cluster that are alive, as `ray.nodes()` describes them."""
    import ray

    nodes: list[dict[str, Any]] = ray.nodes()
    return [node for node in nodes if node["Alive"]]


class _QuietFile(logging.FileHandler):
    """A log file whose write errors (a full disk) are not shown on the screen."""

    def _open(self) -> TextIOWrapper:
        file: Any = opened(Path(self.baseFilename), self.mode, self.encoding)
        return cast("TextIOWrapper", file)

    def handleError(self, record: logging.LogRecord) -> None:
        """Nothing."""


class _Plain(logging.Formatter):
    """Log lines without control characters, which could change what a terminal shows."""

    def format(self, record: logging.LogRecord) -> str:
        """The line of a record."""
        return plain(super().format(record))


def host_names(ids: Iterable[str], nodes: Iterable[Mapping[str, Any]]) -> str:
    """The names of the hosts of these node ids; `nodes` as `live_nodes` lists them."""
    names = {node["NodeID"]: node["NodeManagerHostname"] for node in nodes}
    return ", ".join(sorted(names.get(id, id) for id in ids))


def draining_nodes() -> dict[str, float | None]:
    """Nodes that will be shut down, as spot instances are: id -> seconds from now, None if not known."""
    from ray._private.state import state  # there is no public way; Ray Train uses this, too

    now = time.time()
    return {node: at / 1000 - now if at else None for node, at in state.get_draining_nodes().items()}


def send_logs(log_file: Path) -> None:
    """Send everything that Ray and raykd log to a file instead of the screen."""
    own_folder(log_file.parent)
    handler = _QuietFile(log_file, encoding="utf-8")
    handler.setFormatter(_Plain("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    root = logging.getLogger()
    for old in list(root.handlers):
        if isinstance(old, _QuietFile):  # of the sweep before
            root.removeHandler(old)
            old.close()
    root.addHandler(handler)
    root.setLevel(logging.INFO)
    for name in list(logging.root.manager.loggerDict):
        if name.split(".")[0] == "ray":
            logger = logging.getLogger(name)
            logger.handlers.clear()
            logger.propagate = True
