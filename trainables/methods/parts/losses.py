"""Losses that several methods use. The loss of a single method is in that method's file."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from trainables.core.numerics import in_float32


@in_float32
def info_nce(q_BD: Tensor, k_BD: Tensor, queue_KD: Tensor, temperature: float) -> Tensor:
    """`CE0(q, k; Q, T)`: cross-entropy of softmax([q.k, q.Q] / T) with the positive at index 0.

    All rows have unit length. No gradient reaches `k` or the queue. Scalar, mean over the batch, nats;
    log(K + 1) if everything is equally similar. He et al. 2020 (arXiv 1911.05722), equation (1).
    """
    k_BD, queue_KD = k_BD.detach(), queue_KD.detach()
    positive_B1 = (q_BD * k_BD).sum(1, keepdim=True)
    logits = torch.cat([positive_B1, q_BD @ queue_KD.T], 1) / temperature
    return F.cross_entropy(logits, logits.new_zeros(len(logits), dtype=torch.int64))


@in_float32
def consistency(q_BD: Tensor, t_BD: Tensor) -> Tensor:
    """`|q - t|^2`: sum over dimensions, mean over the batch. Scalar; `2 - 2 cos` for rows of unit length.

    No gradient reaches `t`. 0 at a perfect match, at most 4 for rows of unit length. The distillation term of
    RETRO and DisCo.
    """
    return (q_BD - t_BD.detach()).square().sum(1).mean()
