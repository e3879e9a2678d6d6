"""SPKD: the student finds those samples of a batch similar that the teacher finds similar.

Tung and Mori 2019, "Similarity-preserving knowledge distillation" (arXiv 1907.09682).

    G = rownorm(F F')     L = |G_s - G_t|_F^2 / B^2          (one view, shared; F: a row for each sample)

`rownorm` scales each row to an L2 norm of 1. Only similarities within the global batch count, so the widths
may differ and the student gets no further layer. `compare: maps` is the paper's form: F is the deepest
stage's map, flattened. The default `features` compares the pooled features. They are what is probed and
exported, and only they train the whole student without labels: an EfficientNet's layers behind its last stage
get no gradient from that stage's map, and would keep their initial weights.

The paper adds the loss to a cross-entropy (`ce_weight`), with weight 3000. The mean over B^2 pairs falls as
1/B, because a row of a larger batch spreads its norm of 1 over more similarities. One well-known library
normalises rows by L1 because of a misplaced argument; its constants are for another loss.

    raykd run search_spaces/spkd.yaml
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Literal

from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from trainables.core.distributed import gather, gather_with_gradient
from trainables.core.numerics import at_least_float32, in_float32
from trainables.methods.base import Batch, Losses, Presets
from trainables.methods.parts.classifier import Labelled, LabelledConfig
from trainables.methods.parts.recipes import on_digits
from trainables.methods.parts.stages import freeze_unreached


class SpkdConfig(LabelledConfig):
    """Settings of SPKD."""

    weight: float = Field(3000.0, gt=0, description="of the similarities' mean square")
    compare: Literal["features", "maps"] = Field(
        "features", description="pooled features, or the deepest stage's map, flattened, as in the paper"
    )


@in_float32
def similarity_loss(s_BD: Tensor, t_BE: Tensor) -> Tensor:
    """`|rownorm(S S') - rownorm(T T')|_F^2 / B^2`, rows of L2 norm 1. No gradient reaches `t`.

    Scalar, the mean over the batch's ordered pairs, from 0 (same similarities) to 4 / B. Tung and Mori 2019,
    equations (1) to (4).
    """
    student, teacher = (F.normalize(x @ x.T, dim=1) for x in (s_BD, t_BE.detach()))
    return (student - teacher).square().mean()


class Spkd(Labelled[SpkdConfig]):
    """Similarity-preserving distillation; see the head of this file."""

    name = "spkd"
    summary = "SPKD: the teacher's similarities between the samples of a batch, kept by the student"
    needs = frozenset({"teacher"})
    may_need = frozenset({"labels", "feature_maps"})
    views = 1
    presets: ClassVar[Presets] = {
        "paper": {  # its CIFAR-10 setting
            "config": {"weight": 3000.0, "compare": "maps", "ce_weight": 1.0},
            "optim": {
                "optimizer": "sgd",
                "decay_norms": True,
                "lr": 0.1,
                "sgd_momentum": 0.9,
                "weight_decay": 5e-4,
                "batch_size": 128,
                "schedule": "multistep",
                "decay_epochs": (60, 120, 160),
                "decay_rate": 0.2,
            },
            "views": {"recipe": "cifar"},
            "epochs": 200,
        },
        "digits": {"config": {"weight": 3000.0, "compare": "features"}, **on_digits(lr=5e-3)},
    }
    small: ClassVar = {"weight": 10.0}
    relational = "a row of similarities has a norm of 1, spread over more samples in a larger batch: 1 / B"

    def build(self) -> None:
        """Freeze what the deepest map does not reach, if nothing else trains it."""
        super().build()
        if self.config.compare == "maps" and self.classifier is None:
            freeze_unreached(self.student, [-1], self.context.image_size)

    @classmethod
    def requires(cls, config: SpkdConfig) -> Mapping[str, str]:
        """Feature maps, if they are compared; labels, if they are used; and `needs`."""
        asked = {"feature_maps": "compare: maps"} if config.compare == "maps" else {}
        return {**asked, **super().requires(config)}

    def forward(self, batch: Batch) -> Losses:
        """The weighted difference of similarities, and the labels' part."""
        (view,) = batch.views
        if self.config.compare == "maps":
            features, maps = self.student.with_maps(view)
            s, t = maps[-1].flatten(1), self.teacher.features_and_maps(self.shown(batch)[0])[1][-1].flatten(1)
        else:
            features = self.student(view)
            s, t = features, self.taught(batch, "features")
        # Gathered in full precision, so that gradients of other workers are summed in full precision too.
        similarity = similarity_loss(gather_with_gradient(s), gather(at_least_float32(t)))
        terms = {"similarity": similarity}
        return self.with_labels(self.config.weight * similarity, terms, features, batch.labels)
