"""The process group of a lane's workers, on hosts that are really apart.

Gloo talks on the address that the host's own name has. On Debian and Ubuntu that is 127.0.1.1, on which no
other host answers, so each worker is told the network interface that has its Ray node's address.
`GLOO_SOCKET_IFNAME`, where it is set, comes first. NCCL looks for interfaces by itself.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

import psutil
import ray
from ray.train.torch import TorchConfig
from ray.train.torch.config import _TorchBackend


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
