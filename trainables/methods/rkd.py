"""RKD: the student takes over the distances and angles between the images of a batch.

Park et al. 2019, "Relational knowledge distillation" (arXiv 1904.05068); `HobbitLong/RepDistiller`.

    s = f(x)     t = f_T(x)                                   (one view x, shared; backbone features)
    d_ij = |x_i - x_j| / mu,  mu the mean of |x_i - x_j| over the pairs that differ
    a_ijk = cos of the angle at x_j between x_i and x_k
    L_D = 1/B^2 sum_ij h(d_ij(s) - d_ij(t))     L_A = 1/B^3 sum_ijk h(a_ijk(s) - a_ijk(t))
    L = 25 L_D + 50 L_A + w CE,   h the Huber loss with its bend at 1

Both sums are over all pairs and triplets of the global batch, as in the published code. For points that
coincide, also in the diagonal, distance and cosine are 0. Rotating, shifting or scaling either space changes
nothing, and the widths of the two may differ. Time and memory grow with B^3 and B^2 D: use batches of at most
a few hundred.

The paper adds the loss to a cross-entropy (`ce_weight: 1`, preset `paper`). At 0, the default, no labels are
used.

    raykd run search_spaces/rkd.yaml
"""

from __future__ import annotations

from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from trainables.core.distributed import gather, gather_with_gradient
from trainables.core.errors import UserError
from trainables.core.numerics import in_float32
from trainables.methods.base import Batch, Context, Losses, Need, Presets
from trainables.methods.parts.classifier import Labelled, LabelledConfig
from trainables.methods.parts.recipes import REPDISTILLER, on_digits


class RkdConfig(LabelledConfig):
    """Settings of RKD."""

    distance_weight: float = Field(25.0, ge=0, description="of the pairs' distances")
    angle_weight: float = Field(50.0, ge=0, description="of the triplets' angles")


@in_float32
def distance_loss(s_BD: Tensor, t_BE: Tensor) -> Tensor:
    """`1/B^2 sum_ij h(d_ij(s) - d_ij(t))`, distances in units of their mean over the pairs that differ.

    No gradient reaches `t`. Scalar; 0 if all distances are in proportion. Park et al. 2019,
    distance-wise loss.
    """
    return F.smooth_l1_loss(_distances(_differences(s_BD)), _distances(_differences(t_BE.detach())))


@in_float32
def angle_loss(s_BD: Tensor, t_BE: Tensor) -> Tensor:
    """`1/B^3 sum_ijk h(a_ijk(s) - a_ijk(t))`, cosines of the angles at j in every triplet.

    No gradient reaches `t`. Scalar; 0 if all angles are equal. Park et al. 2019, angle-wise loss.
    """
    return F.smooth_l1_loss(_angles(_differences(s_BD)), _angles(_differences(t_BE.detach())))


def _differences(x_BD: Tensor) -> Tensor:
    """`x_i - x_j` at [j, i]: (B, B, D). Rounding in the Gram matrix would keep equal points apart."""
    return x_BD[None] - x_BD[:, None]


def _lengths(x_BBD: Tensor) -> Tensor:
    """Norms over the last dimension, (B, B). The gradient at 0 is 0; that of torch's norm is not finite."""
    squares = x_BBD.square().sum(2)
    apart = squares > 0
    return torch.where(apart, torch.where(apart, squares, 1.0).sqrt(), 0.0)


def _distances(differences_BBD: Tensor) -> Tensor:
    """Distances in units of their mean over the pairs that differ: (B, B)."""
    lengths = _lengths(differences_BBD)
    pairs = (lengths > 0).sum().clamp(min=1)
    mean = lengths.sum() / pairs
    return lengths / torch.where(mean > 0, mean, 1.0)


def _angles(differences_BBD: Tensor) -> Tensor:
    """Cosines at [j, i, k]: (B, B, B)."""
    lengths = _lengths(differences_BBD)
    unit = differences_BBD / torch.where(lengths > 0, lengths, 1.0)[:, :, None]
    return unit @ unit.transpose(1, 2)


class Rkd(Labelled[RkdConfig]):
    """Relational distillation; see the head of this file."""

    name = "rkd"
    summary = "RKD: distances between and angles among a batch's features as the teacher has them"
    needs = frozenset({"teacher"})
    views = 1
    presets: ClassVar[Presets] = {
        "paper": {
            "config": {"distance_weight": 25.0, "angle_weight": 50.0, "ce_weight": 1.0},
            **REPDISTILLER,
        },
        "digits": {"config": {"distance_weight": 25.0, "angle_weight": 50.0}, **on_digits(lr=5e-3)},
    }
    small: ClassVar = {"distance_weight": 1.0, "angle_weight": 2.0}

    @classmethod
    def check(cls, config: RkdConfig, context: Context) -> None:
        """Refuse a loss without distances and angles."""
        if config.distance_weight == config.angle_weight == 0:
            raise UserError(
                "config.distance_weight",
                "is 0 like angle_weight, so nothing is learnt from the teacher",
                value=config.distance_weight,
                expected="one of them above 0",
            )

    @classmethod
    def memory(cls, config: RkdConfig, context: Context) -> tuple[Need, ...]:
        """The differences of all pairs and the products of all triplets."""
        if context.student is None or context.teacher is None:
            return ()
        batch = context.batch_size // context.accumulate
        # Counted: seven (B, B, D) of the student with their gradients, or three of the teacher, and about two
        # (B, B, B).
        pairs = max(7 * context.student.feature_dim, 3 * context.teacher.feature_dim) * batch**2
        step = 4 * (pairs + 2 * batch**3)
        return (Need("optim.batch_size", "the differences of all pairs of a batch", step=step),)

    def forward(self, batch: Batch) -> Losses:
        """The weighted sum of both losses, and the labels' part."""
        (view,) = batch.views
        features: Tensor = self.student(view)
        s, t = gather_with_gradient(features), gather(self.taught(batch, "features"))
        parts = (
            ("distance", self.config.distance_weight, distance_loss),
            ("angle", self.config.angle_weight, angle_loss),  # memory grows with the cube of the batch
        )
        terms = {name: loss(s, t) for name, weight, loss in parts if weight > 0}
        total = torch.stack([weight * terms[name] for name, weight, _ in parts if weight > 0]).sum()
        return self.with_labels(total, terms, features, batch.labels)
