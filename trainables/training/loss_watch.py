"""The losses of an epoch: kept on the device, averaged, and checked for divergence at intervals."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from trainables.core.errors import TrialFailed
from trainables.core.workers import mean_over_workers
from trainables.methods.base import Losses

LOOK_EVERY = 50  # steps between checks; each check waits for the GPU
EXPLODED = 1e4  # limit of the loss, as a multiple of the first step's loss (or of 1 if that is smaller)


class LossWatch:
    """Averages an epoch's losses; raises `TrialFailed` on every worker alike if they diverge.

    `first_loss` is the total loss of the trial's first step; None before it.
    """

    def __init__(self, epoch: int, steps: int, first_loss: float | None) -> None:
        self.first_loss = first_loss
        self._epoch, self._steps, self._seen = epoch, steps, 0
        self._names: list[str] = []
        self._rows: list[Tensor] = []  # (1 + terms,) for each step since the last check
        self._sums: list[float] = []

    def add(self, parts: list[Losses]) -> None:
        """Add the losses of one optimizer step, one item for each micro-batch. May raise `TrialFailed`."""
        self._names = ["total", *parts[0].terms]
        rows = [torch.stack([p.total.detach(), *(t.detach() for t in p.terms.values())]) for p in parts]
        self._rows.append(rows[0].float() if len(rows) == 1 else torch.stack(rows).float().mean(0))
        if len(self._rows) == LOOK_EVERY:
            self._look()

    def means(self) -> dict[str, float]:
        """`loss/total` and `loss/TERM`: means over the epoch's steps and workers. May raise `TrialFailed`."""
        self._look()
        return {
            f"loss/{name}": total / self._seen for name, total in zip(self._names, self._sums, strict=True)
        }

    def _look(self) -> None:
        if not self._rows:
            return
        for row in mean_over_workers(torch.stack(self._rows)).tolist():
            self._seen += 1
            if self.first_loss is None:
                self.first_loss = row[0]
            limit = EXPLODED * max(1.0, abs(self.first_loss))
            bad = not all(map(math.isfinite, row))
            if bad or abs(row[0]) > limit:
                terms = ", ".join(f"{name} {value:.4g}" for name, value in zip(self._names, row, strict=True))
                why = "is not finite" if bad else f"exploded (the first step's was {self.first_loss:.4g})"
                raise TrialFailed(
                    f"the loss {why} at epoch {self._epoch}, step {self._seen}/{self._steps}: {terms}"
                )
            self._sums = [s + value for s, value in zip(self._sums or [0.0] * len(row), row, strict=True)]
        self._rows.clear()
