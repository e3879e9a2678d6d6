"""The momentum encoder: a copy of the student that follows it as an exponential moving average.

Papers also call it the mean student, as the setting `mean_student` of RETRO does.
"""

from __future__ import annotations

import copy
from collections.abc import Callable

import torch
from torch import Tensor, nn

from trainables.core.distributed import has_local_batch_norm, shuffled
from trainables.core.numerics import unit
from trainables.core.workers import world_size
from trainables.methods.parts.queue import Queue


class MomentumEncoder(nn.Module):
    """Copies of named modules, without gradient. A call passes through them in the order given.

    Only parameters are averaged. The buffers of batch norms belong to the copy: its own passes in train mode
    fill them, as in `facebookresearch/moco`.
    """

    def __init__(self, **modules: nn.Module) -> None:
        super().__init__()
        self.parts = nn.ModuleDict({name: copy.deepcopy(module) for name, module in modules.items()})
        self.requires_grad_(False)

    def forward(self, images: Tensor) -> Tensor:
        """Pass through all parts: (B, 3, H, W) -> (B, D)."""
        out = images
        for part in self.parts.values():
            out = part(out)
        return out

    @torch.no_grad()
    def follow(self, momentum: float, **modules: nn.Module) -> None:
        """`copy <- momentum * copy + (1 - momentum) * module`, for the names given at construction.

        Raises `ValueError` for other names.
        """
        if modules.keys() != set(self.parts):
            raise ValueError(f"momentum encoder of {sorted(self.parts)} cannot follow {sorted(modules)}")
        copies: list[Tensor] = [p for part in self.parts.values() for p in part.parameters()]
        student: list[Tensor] = [p for name in self.parts for p in modules[name].parameters()]
        torch._foreach_lerp_(copies, student, 1.0 - momentum)


@torch.no_grad()
def keys_of(
    encode: Callable[[Tensor], Tensor], modules: nn.Module, images: Tensor, queue: Queue, seed: int
) -> Tensor:
    """`sg u(encode(images))`: (B, 3, H, W) -> (B, D), with shuffle-BN where it makes a difference.

    `modules` are what `encode` passes through. Shuffling changes nothing with one worker or with batch
    statistics over all workers. Then a positive shares its batch statistics with its query, as in any MoCo on
    one GPU.
    """
    if world_size() > 1 and has_local_batch_norm(modules):
        # A new order each step; the same on every worker, and after a resume.
        return unit(shuffled(encode, images, (seed * 1_000_003 + queue.count) % 2**63))
    return unit(encode(images))
