"""How the workers of a lane find each other, without an open port where they share a machine.

Ray Train's way, torch's TCP store, listens on every interface and asks nobody who they are. On a Ray that is
on loopback all workers of a lane are on this machine, and a file in Ray's session folder does the same.
"""

from __future__ import annotations

import uuid
from pathlib import Path
from typing import Any

import ray
from ray.train.torch import TorchConfig
from ray.train.torch.config import (
    _set_torch_distributed_env_vars,
    _setup_torch_process_group,
    _TorchBackend,
)

from raykd.cluster import on_loopback


class _FileBackend(_TorchBackend):
    """As Ray's, the rendezvous being a file."""

    def on_start(self, worker_group: Any, backend_config: Any) -> None:
        worker_group.execute(_set_torch_distributed_env_vars)
        meeting = Path(worker_group.execute_single(0, _session_folder)) / f"raykd-{uuid.uuid4().hex}"
        ray.get(
            [
                worker_group.execute_single_async(
                    rank,
                    _setup_torch_process_group,
                    backend=backend_config.backend,
                    world_rank=rank,
                    world_size=len(worker_group),
                    init_method=meeting.as_uri(),
                    timeout_s=backend_config.timeout_s,
                )
                for rank in range(len(worker_group))
            ]
        )


class FileTorchConfig(TorchConfig):
    """Torch's process group for workers of one machine."""

    @property
    def backend_cls(self) -> type[_FileBackend]:
        return _FileBackend


def torch_config(backend: str, timeout_s: int) -> TorchConfig:
    """What Ray Train needs to connect the workers of a lane with `backend`, gloo or nccl."""
    kind = FileTorchConfig if on_loopback() else TorchConfig
    return kind(backend=backend, timeout_s=timeout_s)


def _session_folder() -> str:
    from ray._private.worker import global_worker

    node: Any = global_worker.node
    return str(node.get_session_dir_path())
