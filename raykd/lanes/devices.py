"""The device of a lane's worker: it trains on the GPU that Ray gave it, or on the CPU."""

from __future__ import annotations

import gc
import os
import socket
import traceback
from dataclasses import dataclass

import ray

from trainables.core.workers import device, use_device

CONTEXT = 600 * 2**20  # bytes of a CUDA context, which torch does not count; measured: 0.3 to 0.6 GB


@dataclass(frozen=True)
class Gpu:
    """A GPU of the cluster."""

    node: str  # Ray's id of its node
    id: str  # Ray's id of the GPU on that node
    host: str

    @property
    def key(self) -> str:
        """What names it in the whole cluster."""
        return f"{self.node}/{self.id}"

    def __str__(self) -> str:
        return f"GPU {self.id} of {self.host}"


class Unusable(RuntimeError):
    """Torch cannot compute on the GPU that Ray gave this worker; `certain`: it never will."""

    def __init__(self, why: str, certain: bool = False) -> None:
        super().__init__(why)
        self.certain = certain


def assigned_gpu() -> Gpu | None:
    """The GPU that Ray gave this worker, the first of several. None: the worker trains on the CPU."""
    context = ray.get_runtime_context()
    ids = context.get_accelerator_ids().get("GPU", [])
    return Gpu(context.get_node_id(), str(ids[0]), socket.gethostname()) if ids else None


def use_gpu(gpu: Gpu | None, share: float) -> None:
    """Train on `gpu` from now on, or on the CPU if it is None. `share` is how much of the GPU may be used.

    Raises `Unusable` if torch cannot compute there.
    """
    import torch
    from ray.train.torch import get_device

    if gpu is None:
        # Nodes of a joined cluster may not hide their GPUs from a worker that asked for none.
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
        use_device(torch.device("cpu"))
        return
    if torch.cuda.device_count() == 0:
        said = (
            "Ray offers it, and torch sees no GPU there (`raykd doctor` on that host says more; "
            "`workers.gpus: 0` trains on the CPU)"
        )
        raise Unusable(said, certain=True)
    try:
        where = get_device()
        use_device(where)
        torch.ones(8, 8, device=where).sum().item()
        if share < 1:
            limit_memory(share)
    except (RuntimeError, ValueError) as error:
        raise Unusable(f"it cannot be used: {error}".splitlines()[0]) from error


def limit_memory(share: float, alone: int = 0) -> None:
    """Let this process take no more of its GPU's memory than `allowed` says."""
    import torch

    where = device()
    total = torch.cuda.get_device_properties(where).total_memory
    torch.cuda.set_per_process_memory_fraction(allowed(share, total, alone) / total, where)


def leave_memory(share: float, error: BaseException | None = None) -> None:
    """Give back the memory that torch keeps on a GPU which other workers share.

    `allowed` counts on it: an idle worker has no more than its context, so another one can have the rest.
    `error` is what the last task raised, if it is still known: its frames would keep the task's tensors.
    """
    import torch

    if not 0 < share < 1:  # nobody else is there, and the next task needs the memory again
        return
    while error is not None:
        traceback.clear_frames(error.__traceback__)
        error = error.__cause__ or error.__context__
    gc.collect()
    torch.cuda.empty_cache()


def allowed(share: float, total: int, alone: int = 0) -> int:
    """Bytes that torch may take in a process which has `share` of a GPU of `total` bytes.

    The CUDA context counts as part of the share, so that the processes of one GPU fit beside each other. With
    `alone` that many processes have a context there, and only this one has a task: it may take the rest.
    """
    if alone:
        return max(total // 2, total - alone * CONTEXT)
    share = min(share, 1.0)
    return int(max(share * total / 2, share * total - CONTEXT))
