"""The worker groups of lanes: what differs from Ray Train's own.

Gloo uses the address of the host's own name. On Debian and Ubuntu that is 127.0.1.1, which no other host can
reach. So each worker sets `GLOO_SOCKET_IFNAME`, unless it is set, to the network interface that has its Ray
node's address. NCCL finds its interfaces itself.

Workers that share a machine meet in a file and not at an open port.

If a controller is ended while its group waits for room, its placement group stays: Ray Train's cleaner knows
only of groups that have started. Such a group would take the next node that joins until the sweep ends. So
each group gets a name by which the pool can find and remove it.

Ray Train's controller of a lane runs on the head and imports this module. It does not import torch, which
would take 300 MB a lane: what needs torch runs in the workers. So Ray's own `TorchTrainer` is not used.

After that Ray Train's cleaner has nothing to do: when the driver dies, Ray removes the groups of its job. And
lanes read no Ray Data. The callbacks for both are left out, because each is another process for a lane. The
cleaner also asks the State API every second whether its controller lives, and never ends without an answer.
Ray Train's own reports and collectives are not used either, so the actor that synchronises them is left out,
as is its watcher of preemptions: the supervisor moves lanes away from nodes that will go.

Ray Train has all controllers where the driver runs, and 64 of them need 8 GiB there. Here those beyond the
first eight run on other nodes.
"""

from __future__ import annotations

import importlib
import os
import tempfile
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, cast

import psutil
import ray
from ray._common.constants import RAY_WARN_BLOCKING_GET_INSIDE_ASYNC_ENV_VAR
from ray.train._internal.utils import get_address_and_port
from ray.train.backend import Backend, BackendConfig
from ray.train.v2._internal.callbacks.datasets import DatasetsCallback
from ray.train.v2._internal.callbacks.placement_group_callback import PlacementGroupCleanerCallback
from ray.train.v2._internal.constants import (
    DEFAULT_RAY_WARN_BLOCKING_GET_INSIDE_ASYNC_VALUE,
    ENABLE_PREEMPTION_WATCHER_ENV_VAR,
    get_env_vars_to_propagate,
)
from ray.train.v2._internal.execution.callback import ControllerCallback, WorkerGroupCallback
from ray.train.v2._internal.execution.controller import TrainController
from ray.train.v2._internal.execution.worker_group import state, worker_group
from ray.train.v2._internal.util import TrainingFramework
from ray.train.v2.api.data_parallel_trainer import DataParallelTrainer
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from raykd.lanes.cluster import on_loopback, session_folder
from raykd.lanes.deaths import death

_LEAVE_S = 30.0  # how long workers may take to leave their process group


@dataclass
class GroupConfig(BackendConfig):
    """How the workers of a lane connect: `backend` is gloo or nccl, `timeout_s` that of collectives."""

    backend: str = "gloo"
    timeout_s: int = 1800

    @property
    def backend_cls(self) -> type[Backend]:
        """What sets up the process group."""
        return _Backend

    @property
    def framework(self) -> TrainingFramework:
        """What Ray's own records name it by."""
        return TrainingFramework.TORCH


class _Backend(Backend):
    """As Ray's for torch, but gloo uses the right interface, and workers of one machine meet in a file."""

    share_cuda_visible_devices = True

    def on_start(self, worker_group: Any, backend_config: Any) -> None:
        """Set up the process group of the workers."""
        worker_group.execute(_choose_interface)
        if backend_config.backend == "nccl" and not all(worker_group.execute(_sees_a_gpu)):
            return  # NCCL would refuse; without a process group `work` runs, and reports what is missing
        worker_group.execute(_set_ranks)
        size, limit = len(worker_group), timedelta(seconds=backend_config.timeout_s)
        if on_loopback():
            # Torch's TCP store listens on every interface, without authentication.
            meeting = str(Path(worker_group.execute_single(0, _meeting_folder)) / "meeting")
            join: Callable[..., None] = _meet
            where: tuple[Any, ...] = (meeting,)
        else:
            join, where = _connect, worker_group.execute_single(0, get_address_and_port)
        ray.get(
            [
                worker_group.execute_single_async(
                    rank, join, backend_config.backend, *where, rank, size, limit
                )
                for rank in range(size)
            ]
        )

    def on_shutdown(self, worker_group: Any, backend_config: Any) -> None:
        """Leave the process group."""
        leaving = worker_group.execute_async(_leave, len(worker_group) > 1)
        with suppress(ray.exceptions.GetTimeoutError):
            ray.get(leaving, timeout=_LEAVE_S)


def _set_ranks() -> None:
    """Tell libraries in this worker its rank, as `torchrun` does."""
    from ray.train.torch.config import _set_torch_distributed_env_vars

    _set_torch_distributed_env_vars()


def _connect(backend: str, address: str, port: int, rank: int, size: int, timeout: timedelta) -> None:
    """Join the process group of the workers, of which the first listens at `address`."""
    from ray.train.torch.config import _setup_torch_process_group

    os.environ.update(MASTER_ADDR=address, MASTER_PORT=str(port))
    _setup_torch_process_group(backend, rank, size, "env://", int(timeout.total_seconds()))


def _leave(group: bool) -> None:
    from ray.train.torch.config import _shutdown_torch

    _shutdown_torch(destroy_process_group=group)


def _meet(backend: str, meeting: str, rank: int, size: int, timeout: timedelta) -> None:
    """Join the process group of the workers that open the file `meeting`.

    The store is made here because torch's `file://` addresses misread `%`, `#`, `?` and blanks.
    """
    dist: Any = importlib.import_module("torch.distributed")

    store = dist.FileStore(meeting, size)
    store.set_timeout(timeout)
    dist.init_process_group(backend, store=store, rank=rank, world_size=size, timeout=timeout)


def _meeting_folder() -> str:
    """A new folder that no other user can enter: the file in it says where the workers connect to."""
    return tempfile.mkdtemp(prefix="raykd-", dir=session_folder())


def _sees_a_gpu() -> bool:
    import torch

    return torch.cuda.device_count() > 0


def _choose_interface() -> None:
    name = interface_of(ray.util.get_node_ip_address())
    if name is not None:
        os.environ.setdefault("GLOO_SOCKET_IFNAME", name)


def interface_of(address: str) -> str | None:
    """The network interface of this host that has this IP address."""
    for name, has in psutil.net_if_addrs().items():
        if any(one.address.partition("%")[0] == address for one in has):
            return name
    return None


class LaneTrainer(DataParallelTrainer):
    """Ray Train's trainer with its controller on the node `controller_node`, if that lives.

    It has no callbacks whose processes a lane does not need.
    """

    controller_node: str  # Ray's id
    elsewhere: bool  # whether that is another node than this process's; then any will do, should it go

    def _initialize_and_run_controller(self, **arguments: Any) -> Any:
        variables = get_env_vars_to_propagate()
        variables.setdefault(
            RAY_WARN_BLOCKING_GET_INSIDE_ASYNC_ENV_VAR, DEFAULT_RAY_WARN_BLOCKING_GET_INSIDE_ASYNC_VALUE
        )
        variables[ENABLE_PREEMPTION_WATCHER_ENV_VAR] = "0"
        where = NodeAffinitySchedulingStrategy(self.controller_node, soft=self.elsewhere)
        options: Any = {"num_cpus": 0, "scheduling_strategy": where, "runtime_env": {"env_vars": variables}}
        controller: Any = ray.remote(**options)(TrainController).remote(**arguments)
        ray.get(controller.run.remote())
        return ray.get(controller.get_result.remote())

    def _create_default_callbacks(self) -> list[Any]:
        callbacks = super()._create_default_callbacks()
        return [
            one for one in callbacks if not isinstance(one, PlacementGroupCleanerCallback | DatasetsCallback)
        ]


class _Nobody:
    """In the place of Ray Train's `SynchronizationActor`: 110 MiB a lane that nothing asks anything."""

    def options(self, **_: Any) -> _Nobody:
        return self

    def remote(self, **_: Any) -> str:
        return "none"


def _end_nobody(actor: str) -> None:
    """There is no process to end."""


class NameGroup(WorkerGroupCallback):
    """Gives the placement groups of a run names that begin with `prefix`. Runs in the run's controller."""

    def __init__(self, prefix: str) -> None:
        self._prefix = prefix

    @contextmanager
    def on_worker_group_start(self) -> Iterator[None]:
        """Name the placement group that is made while the block runs."""
        module: Any = worker_group
        module.SynchronizationActor = _Nobody()
        cast(Any, state)._shutdown_sync_actor = _end_nobody
        plain = module.placement_group

        def named(*arguments: Any, **options: Any) -> Any:
            return plain(*arguments, **{**options, "name": f"{self._prefix}-{uuid.uuid4().hex[:8]}"})

        module.placement_group = named
        try:
            yield
        finally:
            module.placement_group = plain


class TellController(ControllerCallback):
    """Tells the broker the lane's controller, which Ray Train names nowhere, and why its workers died.

    A stuck lane is ended by killing its controller.
    """

    def __init__(self, broker: str, namespace: str, lane: str) -> None:
        self._broker = broker
        self._namespace = namespace
        self._lane = lane

    def after_controller_start(self, train_run_context: Any) -> None:
        """Give the broker a handle of this controller."""
        broker = ray.get_actor(self._broker, namespace=self._namespace)
        broker.controller.remote(self._lane, ray.get_runtime_context().current_actor)

    def after_controller_state_update(self, previous_state: Any, current_state: Any) -> None:
        """If the group has failed, tell the broker why a worker died."""
        failed = getattr(current_state, "training_failed_error", None)
        if failed is not None:
            deaths = filter(None, map(death, getattr(failed, "worker_failures", {}).values()))
            broker = ray.get_actor(self._broker, namespace=self._namespace)
            broker.down.remote(self._lane, next(deaths, None))


def free(prefix: str) -> None:
    """Remove the placement groups whose names begin with `prefix`; their controllers are gone."""
    for row in ray.util.placement_group_table().values():
        if row["name"].startswith(f"{prefix}-") and row["state"] != "REMOVED":
            with suppress(ValueError):  # gone by now
                ray.util.remove_placement_group(ray.util.get_placement_group(row["name"]))
