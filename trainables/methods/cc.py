"""CC: the correlations among a batch's features, by a Gaussian kernel, are what the student takes over.

Peng et al. 2019, "Correlation congruence for knowledge distillation" (arXiv 1904.01802).

    s = u(a(f(x)))     t = u(f_T(x))                          (one view x, shared; backbone features)
    C_ij = sum_{p=0..P} e^(-2 g) (2 g)^p / p! (x_i . x_j)^p      ~ exp(-g |x_i - x_j|^2),  P 2, g .4
    L = w |C(s) - C(t)|_F^2 / B^2 + v CE

C is over the whole global batch, so its order does not matter. The code in common use (`RepDistiller`) is
another loss, of neighbouring samples only, |s - t|_i . |s - t|_{i+1}, which the order changes. It also trains
an embedding of the teacher, and two embeddings that are both constant match perfectly; here `a` is a linear
layer of the student to the teacher's width and the teacher's features stay as they are. The weight .02 is
that code's, for want of another: alone, AdamW makes it unimportant; beside a cross-entropy, search it.

Expect on digits (preset `digits`, test_efficientnet at half width, two seeds): 5-shot ridge 89 to 89.5 from
a test_resnet taught by 64 epochs of MoCo at view strength 1; untrained 68.9. The unweighted loss falls from
.0125 in the first epoch to .0017.

    raykd run search_spaces/cc.yaml
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn

from trainables.core.distributed import gather, gather_with_gradient
from trainables.core.numerics import in_float32, unit
from trainables.methods.base import Batch, Context, Losses, MethodConfig
from trainables.methods.parts.classifier import Labelled, LabelledConfig
from trainables.methods.parts.recipes import REPDISTILLER, on_digits
from trainables.networks.backbones import Backbone, seeded
from trainables.teachers.teacher import Teacher


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
    """`|C(s) - C(t)|_F^2 / B^2`. No gradient reaches `t`. Scalar; 0 where all cosines are equal.

    Peng et al. 2019, section 3.
    """
    t_BE = t_BE.detach()
    return (correlations(s_BD, gamma, order) - correlations(t_BE, gamma, order)).square().mean()


class Cc(Labelled):
    name = "cc"
    summary = "CC: the kernel matrix of a batch's features as the teacher has it, by a linear layer"
    needs = frozenset({"teacher"})
    views = 1

    class Config(LabelledConfig):
        weight: Annotated[float, Field(gt=0)] = Field(0.02, description="of the difference of correlations")
        gamma: Annotated[float, Field(gt=0)] = Field(
            0.4, description="of the Gaussian kernel: 1 / (2 width^2), on features of unit length"
        )
        order: Annotated[int, Field(ge=1, le=10)] = Field(
            2, description="of the kernel's Taylor series; the paper's P"
        )

    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "paper": {
            "config": {"weight": 0.02, "gamma": 0.4, "order": 2, "ce_weight": 1.0},
            **REPDISTILLER,
        },
        "digits": {
            "config": {"weight": 1.0, "gamma": 0.4, "order": 2},
            **on_digits(lr=5e-3),
        },
    }
    points = ("backbone", "adapter")
    config: Config
    teacher: Teacher

    def __init__(
        self, config: MethodConfig, student: Backbone, teacher: Teacher | None, context: Context
    ) -> None:
        super().__init__(config, student, teacher, context)
        with seeded(context.seed):
            self.adapter = nn.Linear(student.feature_dim, self.teacher.feature_dim)

    def forward(self, batch: Batch) -> Losses:
        (view,) = batch.views
        features: Tensor = self.student(view)
        s, t = gather_with_gradient(self.adapter(features)), gather(self.teacher.features(view))
        terms = {"distillation": congruence(s, t, self.config.gamma, self.config.order)}
        total = self.config.weight * terms["distillation"]
        return self.with_labels(total, terms, features, batch.labels)

    def features(self, images: Tensor, point: str) -> Tensor:
        features: Tensor = self.student(images)
        return self.adapter(features) if point == "adapter" else features
