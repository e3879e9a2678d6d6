"""Projection heads with batch normalisation, for methods without negatives: BYOL, Barlow Twins."""

from __future__ import annotations

import itertools

from torch import nn


def batch_norm_head(*widths: int) -> nn.Sequential:
    """Linear-BN-ReLU for each step between `widths`, the last one Linear alone: (B, widths[0]) -> (B, [-1]).

    `batch_norm_head(512, 4096, 256)` is BYOL's projector, with `vturrisi/solo-learn`'s biases.
    """
    layers: list[nn.Module] = []
    for before, after in itertools.pairwise(widths):
        layers += [nn.Linear(before, after), nn.BatchNorm1d(after), nn.ReLU()]
    return nn.Sequential(*layers[:-2])
