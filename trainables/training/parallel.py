"""A method that several workers train together: torch's DistributedDataParallel, set as the method allows."""

from __future__ import annotations

import warnings

import torch
from torch.nn.parallel import DistributedDataParallel

from trainables.core.workers import world_size
from trainables.methods.base import Method


def data_parallel(
    method: Method, accumulate: int, fast: bool | None = None
) -> DistributedDataParallel | None:
    """`method` with its gradients averaged over the workers; None with one worker.

    `fast`, on GPUs by default: the order in which gradients arrive is learned in the first step
    (`static_graph`), and gradients lie where they are sent from. Then nothing is searched for unused
    parameters in later steps. It changes in which pieces gradients are added up, so the bits of a sum over
    three or more workers: on CPUs a result must not change, also not by a resume. Micro-batches (`accumulate`
    above 1) send no gradients, which torch does not allow beside a static graph; neither is it for a method
    whose steps differ (`Method.static_graph`).
    """
    if world_size() == 1:
        return None
    if fast is None:
        fast = next(method.parameters()).is_cuda
    static = fast and method.static_graph and accumulate == 1
    with warnings.catch_warnings():
        # Newer torch has another name for the argument, which older torch lacks.
        warnings.filterwarnings("ignore", "`broadcast_buffers` is deprecated", FutureWarning)
        return DistributedDataParallel(
            method,
            broadcast_buffers=False,
            gradient_as_bucket_view=static,
            static_graph=static,
            # A student may have parameters that it never uses; a static graph finds them itself.
            find_unused_parameters=not static,
        )


def broadcast_buffers(method: Method) -> None:
    """Copy the first worker's buffers to all workers."""
    for buffer in method.buffers() if world_size() > 1 else ():
        torch.distributed.broadcast(buffer, 0)
