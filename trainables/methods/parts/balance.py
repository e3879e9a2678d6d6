"""Losses of several teachers in one total: their weights, and AdaLoss.

AdaLoss: Hu et al. 2019, "Learning anytime predictions in neural networks via adaptive loss balancing" (arXiv
1708.06832), each loss divided by its own moving average. AM-RADIO (arXiv 2312.06709) compares it with plain
weights, finds little between them, and takes plain weights.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from trainables.core.distributed import gather

_MOMENTUM = 0.99  # as in AM-RADIO's experiment

Balancing = Annotated[
    Literal["none", "adaloss"],
    Field(
        description="of several teachers' losses: none: their `weight` alone; adaloss: each is divided by "
        "its moving average, too; unused with one teacher"
    ),
]


class Balance(nn.Module):
    """`sum_i w_i L_i`, or with `adaloss` `sum_i w_i L_i / l_i`, `l_i` the moving average of the loss `L_i`.

    A loss must be above 0. The first batch sets the averages. They change after each step (`advance`) by the
    mean over all workers, so the total does not depend on the number of workers.
    """

    levels: Tensor  # (n,); 0 before the first step

    def __init__(self, weights: Sequence[float], how: Balancing) -> None:
        super().__init__()
        self.weights, self.how = tuple(weights), how
        self.register_buffer("levels", torch.zeros(len(self.weights)))
        self._held: list[Tensor] = []

    def forward(self, losses: Sequence[Tensor]) -> Tensor:
        """Scalars -> their total, a scalar."""
        weighted = torch.stack([w * loss.float() for w, loss in zip(self.weights, losses, strict=True)])
        if self.how == "none":
            return weighted.sum()
        now = torch.stack([loss.detach().float() for loss in losses])[None]
        if self.training:
            self._held.append(now)
        first = gather(now).mean(0)  # a collective in every step, so that all workers make it
        return (weighted / torch.where(self.levels > 0, self.levels, first)).sum()

    def advance(self) -> None:
        """Move the averages by the losses since the last call."""
        if not self._held:
            return
        now = gather(torch.cat(self._held)).mean(0)
        self._held.clear()
        self.levels.copy_(torch.where(self.levels > 0, self.levels.lerp(now, 1 - _MOMENTUM), now))
