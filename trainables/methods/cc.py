"""CC: the student takes over the correlations between the features of a batch, by a Gaussian kernel.

Peng et al. 2019, "Correlation congruence for knowledge distillation" (arXiv 1904.01802).

    s = u(a(f(x)))     t = u(f_T(x))                          (one view x, shared; backbone features)
    C_ij = sum_{p=0..P} e^(-2 g) (2 g)^p / p! (x_i . x_j)^p      ~ exp(-g |x_i - x_j|^2),  P 2, g .4
    L = w |C(s) - C(t)|_F^2 / B^2 + v CE

C is over the whole global batch, so the order of the batch does not matter. The code in common use
(`RepDistiller`) computes another loss: only of neighbouring samples, |s - t|_i . |s - t|_{i+1}, which depends
on the order. It also trains an embedding of the teacher, and two constant embeddings match perfectly. Here
`a` is a linear layer from the student to the teacher's width, and the teacher's features are used as they
are. The weight .02 is that code's, because the paper gives none. Without a cross-entropy the weight is
unimportant under AdamW; with one, search it.

    raykd run search_spaces/cc.yaml
"""

from __future__ import annotations

import math
from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn

from trainables.core.distributed import gather, gather_with_gradient
from trainables.core.numerics import in_float32, unit
from trainables.methods.base import Batch, Losses, Presets
from trainables.methods.parts.classifier import Labelled, LabelledConfig
from trainables.methods.parts.recipes import REPDISTILLER, on_digits


class CcConfig(LabelledConfig):
    """Settings of CC."""

    weight: float = Field(0.02, gt=0, description="of the difference of correlations")
    gamma: float = Field(
        0.4, gt=0, description="of the Gaussian kernel: 1 / (2 width^2), on features of unit length"
    )
    order: int = Field(2, ge=1, le=10, description="of the kernel's Taylor series; the paper's P")


@in_float32
def correlations(x_BD: Tensor, gamma: float, order: int) -> Tensor:
    """The kernel matrix (B, B) of rows scaled to unit length; Peng et al. 2019, section 3.

    Entry ij is `sum_{p=0..order} exp(-2 gamma) (2 gamma)^p / p! cos_ij^p`, the Taylor series of
    `exp(-gamma |u_i - u_j|^2)`.
    """
    u = unit(x_BD)
    cosine = u @ u.T
    kernel, power = torch.zeros_like(cosine), torch.ones_like(cosine)
    for p in range(order + 1):
        kernel = kernel + (2 * gamma) ** p / math.factorial(p) * power
        power = power * cosine
    return math.exp(-2 * gamma) * kernel


@in_float32
def congruence(s_BD: Tensor, t_BE: Tensor, gamma: float, order: int) -> Tensor:
    """`|C(s) - C(t)|_F^2 / B^2`. No gradient reaches `t`. Scalar; 0 if all cosines are equal.

    Peng et al. 2019, section 3.
    """
    t_BE = t_BE.detach()
    return (correlations(s_BD, gamma, order) - correlations(t_BE, gamma, order)).square().mean()


class Cc(Labelled[CcConfig]):
    """Correlation congruence; see the head of this file."""

    name = "cc"
    summary = "CC: the kernel matrix of a batch's features as the teacher has it, by a linear layer"
    needs = frozenset({"teacher"})
    views = 1
    points = ("backbone", "adapter")
    presets: ClassVar[Presets] = {
        "paper": {"config": {"weight": 0.02, "gamma": 0.4, "order": 2, "ce_weight": 1.0}, **REPDISTILLER},
        "digits": {"config": {"weight": 1.0, "gamma": 0.4, "order": 2}, **on_digits(lr=5e-3)},
    }

    def build(self) -> None:
        """Make the linear layer to the teacher's width."""
        super().build()
        self.adapter = nn.Linear(self.student.feature_dim, self.teacher.feature_dim)

    def forward(self, batch: Batch) -> Losses:
        """The difference of correlations, and the labels' part."""
        (view,) = batch.views
        features: Tensor = self.student(view)
        s, t = gather_with_gradient(self.adapter(features)), gather(self.taught(batch, "features"))
        terms = {"distillation": congruence(s, t, self.config.gamma, self.config.order)}
        total = self.config.weight * terms["distillation"]
        return self.with_labels(total, terms, features, batch.labels)
