"""The worker groups of lanes, where Ray Train leaves something to be done: on hosts that are really apart.

Gloo talks on the address that the host's own name has. On Debian and Ubuntu that is 127.0.1.1, on which no
other host answers, so each worker is told the network interface that has its Ray node's address.
`GLOO_SOCKET_IFNAME`, where it is set, comes first. NCCL looks for interfaces by itself.

A controller that is ended while its group waits for room leaves a placement group that nobody knows: Ray
Train's cleaner hears only of groups that have started. It would take the next node that joins, for as long as
the sweep runs. So each gets a name by which the pool finds it.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import psutil
import ray
from ray.train.torch import TorchConfig
from ray.train.torch.config import _TorchBackend
from ray.train.v2._internal.execution.callback import WorkerGroupCallback
from ray.train.v2._internal.execution.worker_group import worker_group


@dataclass
class GroupConfig(TorchConfig):
    """`TorchConfig`, with gloo on the interface that the nodes reach each other by."""

    @property
    def backend_cls(self) -> type[_TorchBackend]:
        return _Backend


class _Backend(_TorchBackend):
    def on_start(self, worker_group: Any, backend_config: Any) -> None:
        worker_group.execute(_choose_interface)
        super().on_start(worker_group, backend_config)


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


class NameGroup(WorkerGroupCallback):
    """Gives the placement groups of a run names that begin with `prefix`. In the run's controller."""

    def __init__(self, prefix: str) -> None:
        self._prefix = prefix

    @contextmanager
    def on_worker_group_start(self) -> Iterator[None]:
        module: Any = worker_group
        plain = module.placement_group

        def named(*arguments: Any, **options: Any) -> Any:
            return plain(*arguments, **{**options, "name": f"{self._prefix}-{uuid.uuid4().hex[:8]}"})

        module.placement_group = named
        try:
            yield
        finally:
            module.placement_group = plain


def free(prefix: str) -> None:
    """Remove the placement groups of a run whose controller is gone."""
    for row in ray.util.placement_group_table().values():
        if row["name"].startswith(f"{prefix}-") and row["state"] != "REMOVED":
            with suppress(ValueError):  # gone by now
                ray.util.remove_placement_group(ray.util.get_placement_group(row["name"]))
