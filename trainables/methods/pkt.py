"""PKT: the student takes over how near the images of a batch are to each other, as a distribution.

Passalis & Tefas 2018, "Learning deep representations with probabilistic knowledge transfer" (arXiv
1803.10837); `passalis/probabilistic_kt`, `HobbitLong/RepDistiller`.

    s = f(x)     t = f_T(x)                                   (one view x, shared; backbone features)
    p_ij = k(x_i, x_j) / sum_m k(x_i, x_m),   k(a, b) = (cos(a, b) + 1) / 2
    L = w/B sum_i KL(p_i(t) || p_i(s)) + v CE

Rows are over the whole global batch. They include the image itself, as in the published code; the paper
leaves it out. That code takes the mean over all B^2 entries, with a weight of 30000 and batches of 64. Here
each row's divergence is a sum and rows are averaged, so that weight is 30000 / 64 = 469. The code divides
features by their norm + 1e-7, here it is the norm alone; the two differ only for norms near 1e-7. Rotating or
scaling either space changes nothing, and the widths of the two may differ.

The paper learns without labels. `RepDistiller` adds a cross-entropy (`ce_weight: 1`).

    raykd run search_spaces/pkt.yaml
"""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field
from torch import Tensor

from trainables.core.distributed import gather, gather_with_gradient
from trainables.core.numerics import in_float32, unit
from trainables.methods.base import Batch, Losses, Presets
from trainables.methods.parts.classifier import Labelled, LabelledConfig
from trainables.methods.parts.recipes import REPDISTILLER, on_digits

_EPS = 1e-7  # as in the published code, because opposite features have probability 0


class PktConfig(LabelledConfig):
    """Settings of PKT."""

    weight: float = Field(
        469.0, gt=0, description="of the divergence; the published code's 30000 at its batch of 64"
    )


@in_float32
def neighbour_kl(s_BD: Tensor, t_BE: Tensor) -> Tensor:
    """`1/B sum_i KL(p_i(t) || p_i(s))`, with `p_ij` in proportion to `(cos(x_i, x_j) + 1) / 2`.

    No gradient reaches `t`. Scalar, nats; 0 if all cosines are equal. Passalis & Tefas 2018, section 3, with
    the image itself among its neighbours.
    """
    p_s, p_t = _neighbours(s_BD), _neighbours(t_BE.detach())
    return (p_t * ((p_t + _EPS) / (p_s + _EPS)).log()).sum(1).mean()


def _neighbours(x_BD: Tensor) -> Tensor:
    """Row i: how near each image is to image i, (B, B); rows sum to 1."""
    u = unit(x_BD)
    kernel = ((u @ u.T + 1) / 2).clamp(min=0)  # rounding may give a cosine below -1
    return kernel / kernel.sum(1, keepdim=True)


class Pkt(Labelled[PktConfig]):
    """Probabilistic knowledge transfer; see the head of this file."""

    name = "pkt"
    summary = "PKT: the batch's cosine similarities as distributions, the student's after the teacher's"
    needs = frozenset({"teacher"})
    views = 1
    presets: ClassVar[Presets] = {
        "paper": {"config": {"weight": 469.0, "ce_weight": 1.0}, **REPDISTILLER},
        "digits": {"config": {"weight": 469.0}, **on_digits(lr=5e-3)},
    }
    small: ClassVar = {"weight": 1.0}

    def forward(self, batch: Batch) -> Losses:
        """The weighted divergence, and the labels' part."""
        (view,) = batch.views
        features: Tensor = self.student(view)
        s, t = gather_with_gradient(features), gather(self.taught(batch, "features"))
        terms = {"distillation": neighbour_kl(s, t)}
        total = self.config.weight * terms["distillation"]
        return self.with_labels(total, terms, features, batch.labels)
