"""DisCo: MoCo-v2 whose queries are also drawn to the teacher's embeddings of the same views.

Gao et al. 2022, "DisCo: Remedy self-supervised learning on lightweight models with distilled contrastive
learning" (arXiv 2104.09124); `Yuting-Gao/DisCo-pytorch`.

    q = u(g(f(x)))     q' = u(g(f(x')))     t = u(g_T(f_T(x)))     k' = sg u(g_m(f_m(x')))
    L = CE0(q, k'; Q, T) + w (|q - t|^2 + |q' - t'|^2)              (x and x': the two views; w = 1)

The gradient flows through q and q'. The wide hidden layer of the head is the paper's remedy for the
"distilling bottleneck"; `hidden` is an axis of its ablation (512, 1280, 2048).

The published code sums |q - t|^2 over the batch of one GPU. Here it is a mean, so no result depends on the
number of workers. `fidelity: code` multiplies it by 32, because the published training has 32 images on each
of 8 GPUs. Preset `paper` is that training. Its teacher is in train mode: add `teacher: {batch_norm: batch}`.

    raykd run search_spaces/disco.yaml
"""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field
from torch import Tensor

from trainables.core.numerics import unit
from trainables.methods.base import Batch, Losses, Presets
from trainables.methods.parts.contrast import Contrast, ContrastConfig
from trainables.methods.parts.losses import consistency, info_nce
from trainables.methods.parts.momentum_encoder import MomentumEncoder, keys_of
from trainables.methods.parts.queue import Queue
from trainables.methods.parts.recipes import MOCO_V2, on_digits
from trainables.networks.heads import projection_head

PUBLISHED_SHARE = 32  # images on each GPU of the published batch of 256 on 8 GPUs


class DiscoConfig(ContrastConfig):
    """Settings of DisCo."""

    hidden: int = Field(
        2048, ge=1, description="width of the head's hidden layer; the paper ablates 512, 1280, 2048"
    )
    consistency_weight: float = Field(1.0, ge=0, description="w, of both consistency terms")
    fidelity: Literal["paper", "code"] = Field(
        "paper",
        description="paper: the consistency is a mean over the batch; code: 32 times that, the published "
        "code's sum over the images of a GPU",
    )


def disco_terms(
    q1_BD: Tensor,
    q2_BD: Tensor,
    k2_BD: Tensor,
    t1_BD: Tensor,
    t2_BD: Tensor,
    queue_KD: Tensor,
    temperature: float,
) -> dict[str, Tensor]:
    """DisCo's `contrastive` term, `CE0(q, k'; Q, T)`, and its `distillation`, `|q - t|^2 + |q' - t'|^2`.

    All rows have unit length; 1 and 2 are the views. Gradient reaches only `q1` and `q2`. Scalars, means over
    the batch. The distillation is the batch's mean of the sum over views of 2 - 2 cos, from 0 to 8. Gao et
    al. 2022, section 3.3.
    """
    return {
        "contrastive": info_nce(q1_BD, k2_BD, queue_KD, temperature),
        "distillation": consistency(q1_BD, t1_BD) + consistency(q2_BD, t2_BD),
    }


class Disco(Contrast[DiscoConfig]):
    """DisCo; see the head of this file."""

    name = "disco"
    summary = "DisCo: MoCo-v2 with a wide head, drawn to the teacher's embeddings of both views"
    needs = frozenset({"teacher"})
    embeds = True
    presets: ClassVar[Presets] = {
        "paper": {
            "config": {
                "hidden": 2048,
                "consistency_weight": 1.0,
                "fidelity": "code",
                "temperature": 0.2,
                "queue_size": 65536,
                "momentum": 0.999,
            },
            **MOCO_V2,
        },
        "digits": {
            "config": {"queue_size": 512, "momentum": 0.99, "temperature": 0.2, "consistency_weight": 10.0},
            **on_digits(),
        },
    }

    def build(self) -> None:
        """Make head, queue and momentum encoder."""
        self.head = projection_head(self.student.feature_dim, self.config.hidden, self.teacher.embed_dim)
        self.queue = Queue(self.config.queue_size, self.teacher.embed_dim)
        self.mean = MomentumEncoder(student=self.student, head=self.head)

    def forward(self, batch: Batch) -> Losses:
        """The contrastive term and the weighted distillation."""
        view1, view2 = batch.views
        q1, q2 = unit(self.head(self.student(view1))), unit(self.head(self.student(view2)))
        t1, t2 = unit(self.taught(batch, "embed", 0)), unit(self.taught(batch, "embed", 1))
        k2 = keys_of(self.mean, self.mean, view2, self.queue, self.context.seed)
        self.queue.hold(k2)
        terms = disco_terms(q1, q2, k2, t1, t2, self.queue.rows, self.config.temperature)
        summed = PUBLISHED_SHARE if self.config.fidelity == "code" else 1
        weight = self.config.consistency_weight * summed
        return Losses(terms["contrastive"] + weight * terms["distillation"], terms)
