"""ReKD-style: MoCo whose positives also include past images that the teacher puts into the same cluster.

After the idea of Zheng et al. 2022, "Boosting contrastive learning with relation knowledge distillation"
(AAAI 2022, arXiv 2112.04174). No public code was found, and this is NOT that method: the paper trains its
teacher along with the student, here it is given and frozen. It is the following definition; do not expect a
published figure of it.

    q = u(g(f(x1)))     k = sg u(g_m(f_m(x2)))     t = u(g_T(f_T(x1)))
    c(v) = argmax_c v.m_c,   m_1 .. m_C prototypes of unit length in the teacher's embedding space
    S = the past images j with c(t_j) = c(t)
    p(a) = exp(q.a / T) / sum_{b in {k} + Q} exp(q.b / T)
    L = -1/(1 + |S|) [log p(k) + sum_{j in S} log p(k_j)]

The mean over positives is outside the logarithm, so each positive pulls, the own key as much as a neighbour.
Q holds past keys k_j, and a second queue the teacher's t_j of the same images. Clusters are computed from the
present prototypes and never stored. Rows of the queue that are still random are only negatives. The
clustering is online: prototypes begin at the teacher's embeddings of C training images. After each step every
prototype with images in the batch moves, `m_c <- u(r m_c + (1 - r) mean of its t)`.

    raykd run search_spaces/rekd_style.yaml
"""

from __future__ import annotations

from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from trainables.core.distributed import gather
from trainables.core.errors import UserError
from trainables.core.numerics import in_float32, unit
from trainables.data.encode import TrainingImages
from trainables.methods.base import Batch, Context, Losses, Presets
from trainables.methods.parts.contrast import Contrast, ContrastConfig
from trainables.methods.parts.momentum_encoder import MomentumEncoder, keys_of
from trainables.methods.parts.queue import Queue
from trainables.methods.parts.recipes import MOCO_V2, on_digits
from trainables.networks.heads import projection_head
from trainables.teachers.teacher import What


class RekdStyleConfig(ContrastConfig):
    """Settings of the ReKD-style method."""

    clusters: int = Field(1000, ge=2, description="prototypes of the online clustering")
    cluster_momentum: float = Field(
        0.99, ge=0, lt=1, description="how slowly a prototype follows what is assigned to it"
    )


@in_float32
def relation_nce(q_BD: Tensor, k_BD: Tensor, queue_KD: Tensor, same_BK: Tensor, temperature: float) -> Tensor:
    """`-1/(1 + |S|) [log p(k) + sum_{j in S} log p(k_j)]`, `p = softmax([q.k, q.Q] / T)`.

    `same_BK`, bool, says which rows of the queue are in a query's S; with none it is InfoNCE. All rows have
    unit length. No gradient reaches `k` or the queue. Scalar, mean over the batch, nats.
    """
    k_BD, queue_KD = k_BD.detach(), queue_KD.detach()
    positive_B1 = (q_BD * k_BD).sum(1, keepdim=True)
    log_p = F.log_softmax(torch.cat([positive_B1, q_BD @ queue_KD.T], 1) / temperature, dim=1)
    positives = F.pad(same_BK, (1, 0), value=True)
    return -((log_p * positives).sum(1) / positives.sum(1)).mean()


class OnlineClusters(nn.Module):
    """Prototypes (C, D) of unit length. Each is a moving average of the embeddings that are nearest to it."""

    prototypes: Tensor

    def __init__(self, clusters: int, dim: int) -> None:
        super().__init__()
        self.register_buffer("prototypes", F.normalize(torch.randn(clusters, dim), dim=1))
        self._held: list[Tensor] = []

    @torch.no_grad()
    def assign(self, t_BD: Tensor) -> Tensor:
        """Index of the nearest prototype by cosine: (B, D) -> (B,)."""
        return _nearest(unit(t_BD), self.prototypes)

    def hold(self, t_BD: Tensor) -> None:
        """Keep this worker's embeddings of one micro-batch until `advance`; in eval mode, do nothing."""
        if self.training:
            self._held.append(t_BD.detach().to(self.prototypes.dtype))

    @torch.no_grad()
    def advance(self, rate: float) -> None:
        """`m_c <- u(rate m_c + (1 - rate) mean)` over the held embeddings of all workers in cluster c.

        A prototype without any embedding does not move.
        """
        if not self._held:
            return
        t = gather(torch.cat(self._held))
        self._held.clear()
        numbers = torch.arange(len(self.prototypes), device=t.device)
        members = (self.assign(t)[:, None] == numbers).to(t.dtype)  # (B, C)
        counts = members.sum(0)[:, None]
        means = members.T @ t / counts.clamp(min=1)
        moved = F.normalize(rate * self.prototypes + (1 - rate) * means, dim=1)
        self.prototypes.copy_(torch.where(counts > 0, moved, self.prototypes))


@in_float32
def _nearest(u_BD: Tensor, prototypes_CD: Tensor) -> Tensor:
    """(B), in float32: half precision could not tell prototypes apart that are close together."""
    return (u_BD @ prototypes_CD.T).argmax(1)


class RekdStyle(Contrast[RekdStyleConfig]):
    """MoCo with the teacher's clusters as further positives; see the head of this file."""

    name = "rekd_style"
    summary = "ReKD-style (not the paper's code): MoCo with the teacher's online clusters as positives, too"
    needs = frozenset({"teacher"})
    embeds = True
    presets: ClassVar[Presets] = {
        "paper": {  # of MoCo-v2
            "config": {"clusters": 1000, "queue_size": 65536, "momentum": 0.999, "temperature": 0.2},
            **MOCO_V2,
        },
        "digits": {
            "config": {"clusters": 32, "queue_size": 512, "momentum": 0.99, "temperature": 0.2},
            **on_digits(lr=5e-3),
        },
    }
    small: ClassVar = {"clusters": 4}

    def build(self) -> None:
        """Make head, queues, clusters and momentum encoder."""
        size, dim, width = self.config.queue_size, self.teacher.embed_dim, self.student.feature_dim
        self.head = projection_head(width, width, dim)
        self.queue, self.teacher_queue = Queue(size, dim), Queue(size, dim)
        self.clusters = OnlineClusters(self.config.clusters, dim)
        self.mean = MomentumEncoder(student=self.student, head=self.head)

    @classmethod
    def asks(cls, config: RekdStyleConfig) -> frozenset[tuple[What, int]]:
        """The embeddings of the first view; the second one is for the momentum encoder alone."""
        return frozenset({("embed", 0)})

    @classmethod
    def check(cls, config: RekdStyleConfig, context: Context) -> None:
        """Refuse a queue that does not fit, and more clusters than training images."""
        super().check(config, context)
        if config.clusters > context.train_size:
            raise UserError(
                "config.clusters",
                f"each prototype begins at one of the {context.train_size} training images",
                value=config.clusters,
                expected=f"at most {context.train_size}",
            )

    def begin(self, images: TrainingImages) -> None:
        """Put the prototypes at the teacher's embeddings of some training images, drawn by the seed."""
        generator = torch.Generator().manual_seed(self.context.seed)
        first = torch.randperm(len(images.ids), generator=generator)[: self.config.clusters]
        self.clusters.prototypes.copy_(unit(images.encode(self.teacher.embed, images.ids[first])))

    def forward(self, batch: Batch) -> Losses:
        """The contrast with all positives."""
        view1, view2 = batch.views
        q = unit(self.head(self.student(view1)))
        k = keys_of(self.mean, self.mean, view2, self.queue, self.context.seed)
        t = unit(self.taught(batch, "embed", 0))
        rows = self.teacher_queue.rows
        same = (self.clusters.assign(t)[:, None] == self.clusters.assign(rows)) & self.teacher_queue.filled
        self.queue.hold(k)
        self.teacher_queue.hold(t)
        self.clusters.hold(t)
        loss = relation_nce(q, k, self.queue.rows, same, self.config.temperature)
        return Losses(loss, {"relation": loss})

    def after_step(self, fraction: float) -> None:
        """Move momentum encoder and prototypes, and advance both queues."""
        super().after_step(fraction)
        self.teacher_queue.advance()
        self.clusters.advance(self.config.cluster_momentum)
