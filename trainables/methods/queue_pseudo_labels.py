"""Queue pseudo-labels: past features of the teacher are the classes that both networks put mixed images in.

The formula and the defaults of `distillationv1` of lightly-train (docs.lightly.ai/train, "Distillation"; its
package, version 0.18), which takes the idea from Beyer et al. 2022, "Knowledge distillation: A good teacher
is patient and consistent" (arXiv 2106.05237), and needs no labels. Written anew from the formula.

    x  <- a x + (1 - a) x[p],   a ~ U(0, 1), p a permutation of the batch      (one view, mixed once for both)
    s  = u(W f(x) + b)          t = u(f_T(x))
    L  = KL(softmax(t.Q / T) || softmax(s.Q / T))                                 (T .07; mean over the batch)

Each of the K rows of Q is a pseudo-class. Q holds the teacher's features of past mixtures, and those of this
batch in the places of the oldest (`include_batch`): lightly-train lets the batch join before it computes the
loss. Rows that are not filled yet are 0, as there, and as similar to everything.

The teacher sees the mixtures, so its answers are of use to one step alone and are not shared between trials.
With `mixup_alpha: 0` they are. What else differs from lightly-train: each of its workers has a queue and
mixtures of its own, here they are those of the global batch, so that no result depends on the number of
workers. And it takes K from the size of the data (16 for fewer than 50 images, then about a quarter to a
half, 8192 from 20,000 on); here K is a setting, a multiple of the batch, with its largest as the default.

    raykd run search_spaces/queue_pseudo_labels.yaml
"""

from __future__ import annotations

from typing import ClassVar, TypeVar

from pydantic import Field
from torch import Tensor

from trainables.core.distributed import gather
from trainables.core.numerics import unit
from trainables.methods.base import Batch, Context, Losses, Method, MethodConfig, Need, Presets
from trainables.methods.compress import similarity_kl
from trainables.methods.parts.mixup import Mixup, MixupAlpha
from trainables.methods.parts.patches import Projection
from trainables.methods.parts.queue import Queue, check_queue, queue_need
from trainables.methods.parts.recipes import lightly_train, on_digits


class QueuePseudoLabelsConfig(MethodConfig):
    """Settings of queue pseudo-labels."""

    temperature: float = Field(0.07, gt=0, description="of both softmaxes over the pseudo-classes")
    queue_size: int = Field(
        8192,
        ge=2,
        description="pseudo-classes; a multiple of the batch, smaller than the data set",
    )
    include_batch: bool = Field(
        True, description="are the batch's own features among the pseudo-classes, as in lightly-train"
    )
    mixup_alpha: MixupAlpha = 1.0


def pseudo_classes(queue: Queue, t_BD: Tensor, include_batch: bool) -> Tensor:
    """The rows (K, D) to classify by: of past features, or of these and the batch's of all workers."""
    return queue.joined(gather(t_BD)) if include_batch else queue.rows


Q = TypeVar("Q", bound=QueuePseudoLabelsConfig)


class QueuePseudoLabels(Method[Q]):
    """Pseudo-classes from a queue, with mixup; see the head of this file. `global_local` adds a term."""

    name = "queue_pseudo_labels"
    summary = "the teacher's similarities to a queue of its features as soft labels, of mixed images"
    needs = frozenset({"teacher"})
    views = 1
    presets: ClassVar[Presets] = {
        "paper": {
            "config": {"temperature": 0.07, "queue_size": 8192, "include_batch": True, "mixup_alpha": 1.0},
            **lightly_train("lars", lr=1.8, weight_decay=1e-6),
        },
        "digits": {"config": {"queue_size": 512}, **on_digits(lr=5e-3)},
    }
    relational = "the batch's own features are pseudo-classes: a sample that comes twice is two of them"

    def build(self) -> None:
        """Make the projection, the queue and the mixup."""
        width = self.teacher.feature_dim
        self.projection = Projection(self.student.feature_dim, width, zero_bias=False)
        self.queue = Queue(self.config.queue_size, width)
        self.queue.rows.zero_()
        self.mixup = Mixup(self.config.mixup_alpha, self.context.seed)

    @classmethod
    def mixes(cls, config: Q) -> bool:
        """Unless `mixup_alpha` is 0."""
        return config.mixup_alpha > 0

    @classmethod
    def check(cls, config: Q, context: Context) -> None:
        """Refuse a queue that does not fit the data or the batch."""
        check_queue(config.queue_size, context)

    @classmethod
    def memory(cls, config: Q, context: Context) -> tuple[Need, ...]:
        """The rows of the queue."""
        return (
            () if context.teacher is None else (queue_need(config.queue_size, context.teacher.feature_dim),)
        )

    def forward(self, batch: Batch) -> Losses:
        """The divergence between both sides' pseudo-labels of the mixed view."""
        view = self.mixup(batch.views[0])
        mixed = self.mixes(self.config)
        t = unit(self.teacher.answer("features", view) if mixed else self.taught(batch, "features"))
        s = unit(self.projection(self.student(view)))
        classes = pseudo_classes(self.queue, t, self.config.include_batch)
        self.queue.hold(t)
        loss = similarity_kl(s, t, classes, classes, self.config.temperature)
        return Losses(loss, {"distillation": loss})

    def after_step(self, fraction: float) -> None:
        """Advance the queue."""
        self.queue.advance()
