"""Mixup: every image becomes a convex combination of itself and another image of the batch.

Zhang et al. 2018, "mixup: Beyond empirical risk minimization" (arXiv 1710.09412); without labels in Beyer et
al. 2022, "Knowledge distillation: A good teacher is patient and consistent" (arXiv 2106.05237), where teacher
and student see the same mixture.

    x_i <- a x_i + (1 - a) x_p(i)       a ~ Beta(alpha, alpha), p a permutation; both drawn once a micro-batch

Share and permutation are drawn by a generator that is seeded with the trial's seed and the number of
micro-batches that were mixed before. That number is in the checkpoint. So a resumed trial goes on with the
same mixtures, and no other random number changes them. The partners are images of the global micro-batch:
with several workers its images are gathered, so the mixtures do not depend on the number of workers.
"""

from __future__ import annotations

from typing import Annotated

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn

from trainables.core.distributed import gather
from trainables.core.workers import rank, sent, world_size

MixupAlpha = Annotated[
    float,
    Field(
        ge=0,
        description="of Beta(alpha, alpha), from which an image's share in its mixture is drawn; 1: uniform; "
        "0: nothing is mixed",
    ),
]
_STREAM = 0x6D6978  # apart from the generators of views and order, which start from (seed, epoch)


class Mixup(nn.Module):
    """(B, 3, H, W) -> (B, 3, H, W); in eval mode, and with `alpha` 0, the images themselves."""

    state: Tensor  # (2,) int64: the seed, and the number of micro-batches that were mixed

    def __init__(self, alpha: float, seed: int) -> None:
        super().__init__()
        self.alpha = alpha
        self.register_buffer("state", torch.tensor([seed, 0]))
        self._host: list[int] | None = [seed, 0]  # `state` as numbers; None: not read yet
        self.register_load_state_dict_post_hook(_forget)  # type: ignore[no-untyped-call]

    def forward(self, images: Tensor) -> Tensor:
        """Mix this worker's images with those of all workers."""
        if not self.training or self.alpha == 0:
            return images
        share, order = self.drawn(len(images) * world_size())
        mine = order[rank() * len(images) :][: len(images)]
        partners = gather(images)[sent(torch.from_numpy(mine), images.device)]
        # In the layout of `images`: another one gives convolutions other last bits.
        return share * images + (1 - share) * torch.empty_like(images).copy_(partners)

    def drawn(self, size: int) -> tuple[float, np.ndarray]:
        """The share and the permutation (size,) of the next micro-batch of `size` images."""
        if self._host is None:
            self._host = self.state.tolist()
        generator = np.random.default_rng([*self._host, _STREAM])
        self._host[1] += 1
        self.state[1] += 1
        return float(generator.beta(self.alpha, self.alpha)), generator.permutation(size)


def _forget(mixup: Mixup, _incompatible: object) -> None:
    mixup._host = None
