"""SPKD: the student finds those samples of a batch similar that the teacher finds similar.

Tung and Mori 2019, "Similarity-preserving knowledge distillation" (arXiv 1907.09682).

    G = rownorm(F F')     L = |G_s - G_t|_F^2 / B^2          (one view, shared; F: a row for each sample)

`rownorm` makes each row's L2 norm 1. Only similarities within the global batch count, so the widths may
differ and nothing is added to the student. `compare: maps` is the paper's: F is the deepest stage's map,
flattened. The default, `features`, are the pooled features: they are what is probed and exported, and only
they train all of a student without labels (what an EfficientNet has behind its last stage sees no gradient
from that stage's map, and is then left as initialised).

The paper adds the loss to cross-entropy (`ce_weight`), with weight 3000. The mean over B^2 pairs makes it
fall as 1/B: a row of a larger batch spreads its norm of 1 over more similarities. One well-known library
normalises rows by L1 through a misplaced argument: its constants are for another loss.

Expect on digits (preset `digits`, half-width test_efficientnet, two seeds): 5-shot ridge 86 to 88.5 from a
test_resnet taught by 64 epochs of MoCo at view strength 1 (itself 90), with lr 2e-3 83 to 84.5; untrained
69. SEED gets 89 to 90: features behind a ReLU all lie in one corner, so that a norm of a row is mostly their
common mean, and what tells classes apart is a small part of it. `compare: maps` 80 to 83.5: behind the 32
channels of this student's last stage the layer that widens them stays random. With `ce_weight: 1` two
points more (at lr 2e-3). The loss falls from .006 in the first epoch to .0005.

    raykd run search_spaces/spkd.yaml
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from trainables.core.distributed import gather, gather_with_gradient
from trainables.core.numerics import at_least_float32, in_float32
from trainables.methods.base import Batch, Context, Losses, MethodConfig
from trainables.methods.parts.classifier import Labelled, LabelledConfig
from trainables.methods.parts.recipes import on_digits
from trainables.methods.parts.stages import freeze_unreached
from trainables.networks.backbones import Backbone
from trainables.teachers.teacher import Teacher


@in_float32
def similarity_loss(s_BD: Tensor, t_BE: Tensor) -> Tensor:
    """`|rownorm(S S') - rownorm(T T')|_F^2 / B^2`, rows of L2 norm 1; no gradient reaches `t`.

    Scalar, the mean over the batch's ordered pairs, from 0 (same similarities) to 4 / B. Tung and Mori 2019,
    equations (1) to (4).
    """
    student, teacher = (F.normalize(x @ x.T, dim=1) for x in (s_BD, t_BE.detach()))
    return (student - teacher).square().mean()


class Spkd(Labelled):
    name = "spkd"
    summary = "SPKD: the teacher's similarities between the samples of a batch, kept by the student"
    needs = frozenset({"teacher"})
    may_need = frozenset({"labels", "feature_maps"})
    views = 1

    class Config(LabelledConfig):
        weight: Annotated[float, Field(gt=0)] = Field(3000.0, description="of the similarities' mean square")
        compare: Literal["features", "maps"] = Field(
            "features", description="pooled features, or the deepest stage's map, flattened, as in the paper"
        )

    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
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
        "digits": {
            "config": {"weight": 3000.0, "compare": "features"},
            **on_digits(lr=5e-3),
        },
    }
    config: Config
    teacher: Teacher

    def __init__(
        self, config: MethodConfig, student: Backbone, teacher: Teacher | None, context: Context
    ) -> None:
        super().__init__(config, student, teacher, context)
        if self.config.compare == "maps" and self.classifier is None:
            freeze_unreached(student, [-1], context.image_size)

    @classmethod
    def requires(cls, config: MethodConfig) -> Mapping[str, str]:
        assert isinstance(config, cls.Config)
        asked = {"feature_maps": "compare: maps"} if config.compare == "maps" else {}
        return {**asked, **super().requires(config)}

    def forward(self, batch: Batch) -> Losses:
        (view,) = batch.views
        if self.config.compare == "maps":
            features, maps = self.student.with_maps(view)
            s, t = maps[-1].flatten(1), self.teacher.features_and_maps(view)[1][-1].flatten(1)
        else:
            features = self.student(view)
            s, t = features, self.teacher.features(view)
        # Gathered in full precision, so that gradients of other workers are summed in it, too.
        similarity = similarity_loss(gather_with_gradient(s), gather(at_least_float32(t)))
        terms = {"similarity": similarity}
        return self.with_labels(self.config.weight * similarity, terms, features, batch.labels)
