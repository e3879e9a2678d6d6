"""Supervised: a linear classifier's cross-entropy on the labels. The no-distillation baseline of `kd`.

    L = CE(W f(x) + b, y)                                     (one view x; images without a label have no say)

It also trains teachers for methods that learn from a teacher's classes: `teacher: {arch: ..., train: {method:
supervised, preset: digits, epochs: 16}}`. Label smoothing is off: it makes a better classifier and a worse
teacher (Mueller et al. 2019, arXiv 1906.02629).

Preset `paper` has the settings that knowledge distillation is compared by on CIFAR-100 (Tian et al. 2020,
arXiv 1910.10699; `HobbitLong/RepDistiller`, which takes lr .01 for MobileNets and ShuffleNets).

Expect on digits (preset `digits`, half-width test_efficientnet, four seeds): 5-shot ridge 97 to 98.5, 1-shot
96 to 98; untrained 69. It has seen every training label, so it is no rival of methods that see none.

    raykd run search_spaces/supervised.yaml
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar

from pydantic import Field
from torch import nn

from trainables.methods.base import Batch, Context, Losses, Method, MethodConfig
from trainables.methods.parts.classifier import cross_entropy, linear_classifier
from trainables.methods.parts.recipes import REPDISTILLER, on_digits
from trainables.networks.backbones import Backbone
from trainables.teachers.teacher import Teacher


class Supervised(Method):
    name = "supervised"
    summary = "Cross-entropy on the labels: the no-distillation baseline, and a way to train teachers"
    needs = frozenset({"labels"})
    views = 1

    class Config(MethodConfig):
        label_smoothing: Annotated[float, Field(ge=0, lt=1)] = Field(
            0.0, description="share of a target that is spread over all classes"
        )

    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "paper": {
            "config": {"label_smoothing": 0.0},
            **REPDISTILLER,
        },
        "digits": {
            "config": {"label_smoothing": 0.0},
            **on_digits(),
        },
    }
    config: Config

    def __init__(
        self, config: MethodConfig, student: Backbone, teacher: Teacher | None, context: Context
    ) -> None:
        super().__init__(config, student, teacher, context)
        self.classifier = linear_classifier(student, context)

    def forward(self, batch: Batch) -> Losses:
        (view,) = batch.views
        loss = cross_entropy(self.classifier(self.student(view)), batch.labels, self.config.label_smoothing)
        return Losses(loss, {"cross_entropy": loss})

    def own_classifier(self) -> nn.Linear:
        return self.classifier
