"""The mean student: a copy that follows the student as an exponential moving average, and gives the keys."""

from __future__ import annotations

import copy
from collections.abc import Callable

import torch
from torch import Tensor, nn

from trainables.core.distributed import has_local_batch_norm, shuffled
from trainables.core.numerics import unit
from trainables.core.workers import world_size
from trainables.methods.parts.queue import Queue


class MeanStudent(nn.Module):
    """Copies of named modules, without gradient; called, it runs through them in the order given.

    Only parameters are averaged. Batch-norm buffers are the copy's own, filled by its own passes in train
    mode, as in `facebookresearch/moco`.
    """

    def __init__(self, **modules: nn.Module) -> None:
        super().__init__()
        self.parts = nn.ModuleDict({name: copy.deepcopy(module) for name, module in modules.items()})
        self.requires_grad_(False)

    def forward(self, images: Tensor) -> Tensor:
        """Through the parts, in the order in which they were given: (B, 3, H, W) -> (B, D)."""
        out = images
        for part in self.parts.values():
            out = part(out)
        return out

    @torch.no_grad()
    def follow(self, momentum: float, **modules: nn.Module) -> None:
        """`mean <- momentum * mean + (1 - momentum) * module`, for the same names as at construction."""
        if modules.keys() != set(self.parts):
            raise ValueError(f"mean student of {sorted(self.parts)} cannot follow {sorted(modules)}")
        mean: list[Tensor] = [p for part in self.parts.values() for p in part.parameters()]
        student: list[Tensor] = [p for name in self.parts for p in modules[name].parameters()]
        torch._foreach_lerp_(mean, student, 1.0 - momentum)


@torch.no_grad()
def keys_of(
    encode: Callable[[Tensor], Tensor], modules: nn.Module, images: Tensor, queue: Queue, seed: int
) -> Tensor:
    """`sg u(encode(images))`: (B, 3, H, W) -> (B, D), by shuffle-BN where it makes a difference.

    `modules` are what `encode` runs through. With one worker, or with statistics over all of them, dealing
    the images anew would change nothing; a positive then shares batch statistics with its query, as in any
    MoCo on one GPU.
    """
    if world_size() > 1 and has_local_batch_norm(modules):
        # A new order each step, the same on every worker and after a resume.
        return unit(shuffled(encode, images, (seed * 1_000_003 + int(queue.seen)) % 2**63))
    return unit(encode(images))
