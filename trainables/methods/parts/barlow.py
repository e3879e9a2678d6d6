"""Redundancy reduction: Barlow Twins' loss, and the cross-distillation (XD) that is built on it.

Zbontar et al. 2021, "Barlow Twins: Self-supervised learning via redundancy reduction" (arXiv 2103.03230);
Meng et al. 2023, "Slimmed asymmetrical contrastive learning and cross distillation for lightweight model
training" (NeurIPS 2023); `vturrisi/solo-learn`, `mengjian0502/solo-learn-sparse`.
"""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from trainables.core.distributed import gather_with_gradient
from trainables.core.numerics import in_float32
from trainables.methods.base import Losses, MethodConfig
from trainables.networks.projectors import batch_norm_head

_EPS = 1e-5  # of the batch normalisation, torch's own


class BarlowConfig(MethodConfig):
    """Settings of methods that compare embeddings by Barlow Twins' loss."""

    loss_scale: float = Field(
        0.024, gt=0, description="s, factor of the whole loss; .024 to .1 in published recipes"
    )
    redundancy: float = Field(
        0.0051, ge=0, description="lambda, weight of the correlations between different dimensions"
    )
    hidden: int = Field(2048, ge=1, description="width of the head's two hidden layers")
    head_dim: int = Field(2048, ge=2, description="dimensions of an embedding")

    def head(self, feature_dim: int) -> nn.Sequential:
        """The projector: two hidden layers with batch normalisation, (B, feature_dim) -> (B, head_dim)."""
        return batch_norm_head(feature_dim, self.hidden, self.hidden, self.head_dim)


class XdConfig(BarlowConfig):
    """Settings of methods with cross-distillation."""

    alpha: float = Field(
        0.95,
        ge=0,
        le=1,
        description="share of the plain loss in `alpha L + (1 - alpha) L_CD`; unused by `xd_form: lambda`",
    )
    xd_weight: float = Field(
        1e-4, ge=0, description="lambda_CD in `L + lambda_CD L_CD`; used only by `xd_form: lambda`"
    )


@in_float32
def correlation(z1_BD: Tensor, z2_BD: Tensor) -> Tensor:
    """`C = BN(z1)^T BN(z2) / B` of the global batch: (D, D), rows by `z1`; the same on every worker.

    BN has no scale and shift, eps 1e-5 and the biased variance. So a dimension of variance v correlates with
    itself by `v / (v + eps)`, a constant one by 0. The gradient reaches both sides on all workers.
    """
    z1, z2 = (_normalised(gather_with_gradient(z)) for z in (z1_BD, z2_BD))
    return z1.T @ z2 / len(z1)


def _normalised(z_BD: Tensor) -> Tensor:
    variance, mean = torch.var_mean(z_BD, 0, correction=0)
    return (z_BD - mean) * (variance + _EPS).rsqrt()


def barlow_terms(z1_BD: Tensor, z2_BD: Tensor) -> tuple[Tensor, Tensor]:
    """(`sum_i (C_ii - 1)^2`, `sum_{i != j} C_ij^2`): the invariance and the redundancy term. Scalars.

    Both are sums over dimensions; C is a mean over the global batch. Zbontar et al. 2021, equation (1).
    """
    c_DD = correlation(z1_BD, z2_BD)
    diagonal = c_DD.diagonal()
    # The difference between the sum of all squares and that of the diagonal would be less exact.
    others = c_DD - torch.diag(diagonal)
    return (diagonal - 1).square().sum(), others.square().sum()


def barlow_loss(z1_BD: Tensor, z2_BD: Tensor, config: BarlowConfig) -> Tensor:
    """`s [sum_i (C_ii - 1)^2 + lambda sum_{i != j} C_ij^2]`. Scalar, the same on every worker."""
    return barlow_losses(z1_BD, z2_BD, config).total


def barlow_losses(z1_BD: Tensor, z2_BD: Tensor, config: BarlowConfig) -> Losses:
    """`barlow_loss` and its two unweighted terms, for the log."""
    invariance, redundancy = barlow_terms(z1_BD, z2_BD)
    total = config.loss_scale * (invariance + config.redundancy * redundancy)
    return Losses(total, {"invariance": invariance, "redundancy": redundancy})


def cross_distilled(
    plain: Losses,
    online: tuple[Tensor, Tensor],
    swapped: tuple[Tensor, Tensor],
    config: XdConfig,
    form: Literal["alpha", "lambda"],
) -> Losses:
    """`plain` with cross-distillation: `L_CD = 1/2 [Barlow(z_A, sg z^_A) + Barlow(z_B, sg z^_B)]`.

    `online` is (z_A, z_B). `swapped` are the embeddings of the same two views by the exchanged encoders. Each
    is (B, D). Form `alpha` is `alpha L + (1 - alpha) L_CD`, as in Meng et al. 2023. Form `lambda` is
    `L + lambda_CD L_CD`, as in the author's repository.
    """
    (z_a, z_b), (hat_a, hat_b) = online, swapped
    cross = (barlow_loss(z_a, hat_a.detach(), config) + barlow_loss(z_b, hat_b.detach(), config)) / 2
    if form == "alpha":
        total = config.alpha * plain.total + (1 - config.alpha) * cross
    else:
        total = plain.total + config.xd_weight * cross
    return Losses(total, {**plain.terms, "barlow": plain.total, "cross": cross})
