"""Supervised: a linear classifier's cross-entropy on the labels. The no-distillation baseline of `kd`.

    L = CE(W f(x) + b, y)                                 (one view x; images without a label are left out)

It also trains teachers for methods that learn from a teacher's classes: `teacher: {arch: ..., train: {method:
supervised, preset: digits, epochs: 16}}`. Label smoothing is off: it makes a better classifier and a worse
teacher (Mueller et al. 2019, arXiv 1906.02629).

Preset `paper` has the settings with which knowledge distillation is compared on CIFAR-100 (Tian et al. 2020,
arXiv 1910.10699; `HobbitLong/RepDistiller`, which takes lr .01 for MobileNets and ShuffleNets).

    raykd run search_spaces/supervised.yaml
"""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from trainables.methods.base import Batch, Losses, MethodConfig, Presets
from trainables.methods.parts.classifier import Classified, cross_entropy
from trainables.methods.parts.recipes import REPDISTILLER, on_digits


class SupervisedConfig(MethodConfig):
    """Settings of the supervised training."""

    label_smoothing: float = Field(
        0.0, ge=0, lt=1, description="share of a target that is spread over all classes"
    )


class Supervised(Classified[SupervisedConfig]):
    """Learning from labels alone; see the head of this file."""

    name = "supervised"
    summary = "Cross-entropy on the labels: the no-distillation baseline, and a way to train teachers"
    needs = frozenset({"labels"})
    views = 1
    presets: ClassVar[Presets] = {
        "paper": {"config": {"label_smoothing": 0.0}, **REPDISTILLER},
        "digits": {"config": {"label_smoothing": 0.0}, **on_digits()},
    }

    def forward(self, batch: Batch) -> Losses:
        """The cross-entropy on the labels."""
        (view,) = batch.views
        loss = cross_entropy(self.classifier(self.student(view)), batch.labels, self.config.label_smoothing)
        return Losses(loss, {"cross_entropy": loss})
