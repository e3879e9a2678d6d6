"""Global and local similarities: pseudo-labels of whole images, and which patches of an image are alike.

The formula and the defaults of `distillationv3` of lightly-train (docs.lightly.ai/train, "Distillation"; its
package, version 0.18; the method that its name `distillation` stands for). Written anew from the formula.

    x <- a x + (1 - a) x[p],   a ~ U(0, 1), p a permutation of the batch       (one view, mixed once for both)
    s = u(W f(x) + b)        t = u(f_T(x))                                        whole images
    S = u(r(V F_s + c))      T = u(F_T)                                           patches, on one grid
    L_global = KL(softmax(t.Q / T1) || softmax(s.Q / T1))                         as in `queue_pseudo_labels`
    L_local  = mean over patches i of KL(softmax(T_i.T / T2) || softmax(S_i.S / T2))
    L = L_global + w L_local                                                      (T1 = T2 = .07, w = 1)

L_local compares the patches of one image with one another, on each side by itself. So the student may turn
the teacher's space, and needs no more than its own arrangement of patches; each patch is compared with
itself, too. F are the maps before pooling, r resamples to the teacher's grid (`grid`; why:
`parts/patches.py`). Whole images are what each network pools: the class token of a ViT that has one, the mean
of the map of a CNN.

Maps are too large to be shared between trials. What differs from lightly-train is said in
`queue_pseudo_labels`: a global queue and global mixtures, and the queue's size. Its weight decay hangs on the
student: 1e-6 for networks with batch norm, as in preset `paper`, .04 for others.

    raykd run search_spaces/global_local.yaml
"""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from trainables.core.numerics import in_float32, unit
from trainables.methods.base import Batch, Context, Losses, Need, Presets
from trainables.methods.compress import similarity_kl
from trainables.methods.parts.mixup import Mixup
from trainables.methods.parts.patches import (
    Grid,
    Projection,
    check_maps,
    check_positions,
    on_one_grid,
    teacher_maps,
    with_student,
)
from trainables.methods.parts.queue import Queue
from trainables.methods.parts.recipes import lightly_train, on_digits
from trainables.methods.queue_pseudo_labels import (
    QueuePseudoLabels,
    QueuePseudoLabelsConfig,
    pseudo_classes,
)


class GlobalLocalConfig(QueuePseudoLabelsConfig):
    """Settings of global and local similarities."""

    local_temperature: float = Field(0.07, gt=0, description="of both softmaxes over the patches of an image")
    local_weight: float = Field(1.0, gt=0, description="w, of the local term")
    grid: Grid = "teacher"


@in_float32
def local_loss(s_BPD: Tensor, t_BPE: Tensor, temperature: float) -> Tensor:
    """`KL(softmax(u(t_i).u(t) / T) || softmax(u(s_i).u(s) / T))`, mean over the patches i of all images.

    The softmax is over the P patches of the same image. Scalar, nats; 0 if both sides find the same patches
    alike, from 0 to log P at most where the student tells no patches apart. No gradient reaches `t`.
    """
    student, teacher = (F.normalize(x, dim=2) for x in (s_BPD, t_BPE.detach()))
    log_s, log_t = (F.log_softmax(x @ x.mT / temperature, dim=2) for x in (student, teacher))
    return F.kl_div(log_s.flatten(0, 1), log_t.flatten(0, 1), reduction="batchmean", log_target=True)


class GlobalLocal(QueuePseudoLabels[GlobalLocalConfig]):
    """Similarities between images and between patches; see the head of this file."""

    name = "global_local"
    summary = (
        "the teacher's similarities of images to a queue, and of an image's patches to one another; mixup"
    )
    needs = frozenset({"teacher", "feature_maps"})
    presets: ClassVar[Presets] = {
        "paper": {
            "config": {
                "temperature": 0.07,
                "local_temperature": 0.07,
                "local_weight": 1.0,
                "queue_size": 8192,
                "include_batch": True,
                "mixup_alpha": 1.0,
            },
            **lightly_train("adamw", lr=5e-4, weight_decay=1e-6),
        },
        "digits": {"config": {"queue_size": 512}, **on_digits(lr=5e-3)},
    }

    def build(self) -> None:
        """Make both projections, the queue and the mixup."""
        (t_map,) = teacher_maps(self.teacher, self.context.image_size)
        check_positions(with_student(self.context, self.student), t_map.shape[2])
        width = self.teacher.feature_dim
        self.projection = Projection(self.student.feature_dim, width, zero_bias=False)
        channels = self.student.map_channels, self.teacher.backbone.map_channels
        self.patch_projection = Projection(*channels, zero_bias=False)
        self.queue = Queue(self.config.queue_size, width)
        self.queue.rows.zero_()
        self.mixup = Mixup(self.config.mixup_alpha, self.context.seed)

    @classmethod
    def check(cls, config: GlobalLocalConfig, context: Context) -> None:
        """Refuse a queue that does not fit, and networks without several patches."""
        super().check(config, context)
        check_maps(context)
        check_positions(context)

    @classmethod
    def memory(cls, config: GlobalLocalConfig, context: Context) -> tuple[Need, ...]:
        """The rows of the queue, and the similarities between patches."""
        if context.teacher is None or context.student is None:
            return ()
        side = context.teacher.map_size
        if config.grid == "smaller":
            side = min(side, context.student.map_size)
        batch = context.batch_size // context.accumulate
        # Similarities and their logarithms of both sides, and two gradients.
        step = 6 * 4 * batch * side**4
        pairs = Need("optim.batch_size", "the similarities between an image's patches", step=step)
        return *super().memory(config, context), pairs

    def forward(self, batch: Batch) -> Losses:
        """Both divergences of the mixed view."""
        config, view = self.config, self.mixup(batch.views[0])
        t_features, (t_map,) = self.teacher.features_and_last_maps(view)
        s_features, (s_map,) = self.student.with_last_maps(view)
        t, s = unit(t_features), unit(self.projection(s_features))
        classes = pseudo_classes(self.queue, t, config.include_batch)
        self.queue.hold(t)
        terms = {
            "global": similarity_kl(s, t, classes, classes, config.temperature),
            "local": local_loss(
                *on_one_grid(self.patch_projection(s_map), t_map, config.grid), config.local_temperature
            ),
        }
        return Losses(terms["global"] + config.local_weight * terms["local"], terms)
