"""KD: the student's class probabilities follow the teacher's, softened by a temperature.

Hinton et al. 2015, "Distilling the knowledge in a neural network" (arXiv 1503.02531), with the weights of
`HobbitLong/RepDistiller` (Tian et al. 2020, arXiv 1910.10699).

    z = W f(x) + b      v: the teacher's logits                                        (one view x, shared)
    L = ce_weight CE(z, y) + weight T^2 KL(softmax(v/T) || softmax(z/T))

A teacher that was not trained on the classes of the data has no logits for them. It gets a logistic
regression that is fitted to its frozen features of the training images (`teacher_classifier`). Labels are
always needed, because they define the classes; images without a label are still distilled.

Preset `paper` has RepDistiller's settings on CIFAR-100 (lr .01 for MobileNets and ShuffleNets).

    raykd run search_spaces/kd.yaml
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from pydantic import Field

from trainables.data.encode import TrainingImages
from trainables.methods.base import Batch, Losses, MethodConfig, Presets
from trainables.methods.parts.classifier import Classified, class_kl, cross_entropy
from trainables.methods.parts.recipes import REPDISTILLER, on_digits
from trainables.methods.parts.teacher_classifier import Kind, TeacherClassifier


class KdConfig(MethodConfig):
    """Settings of KD."""

    temperature: float = Field(4.0, gt=0, description="of both softmaxes")
    weight: float = Field(0.9, gt=0, description="of the distillation term")
    ce_weight: float = Field(
        0.1, ge=0, description="of the cross-entropy on the labels; 0: the teacher's classes alone"
    )
    teacher_classifier: Kind = "auto"


class Kd(Classified[KdConfig]):
    """Knowledge distillation; see the head of this file."""

    name = "kd"
    summary = "KD: the teacher's softened class probabilities, beside the labels"
    needs = frozenset({"teacher", "labels"})
    may_need = frozenset({"teacher_classifier"})
    views = 1
    presets: ClassVar[Presets] = {
        "paper": {"config": {"temperature": 4.0, "weight": 0.9, "ce_weight": 0.1}, **REPDISTILLER},
        "digits": {"config": {"temperature": 1.0, "weight": 0.9, "ce_weight": 0.1}, **on_digits()},
    }
    small: ClassVar = {"temperature": 1.0}  # at 4 the loss falls too slowly for a short test

    def build(self) -> None:
        """Make the student's classifier and the teacher's."""
        super().build()
        kind = self.config.teacher_classifier
        self.teacher_classifier = TeacherClassifier(self.teacher, self.context.classes, kind)

    @classmethod
    def requires(cls, config: KdConfig) -> Mapping[str, str]:
        """The teacher's own classifier, if the settings name it; and `needs`."""
        own = {"teacher_classifier": "teacher_classifier: own"} if config.teacher_classifier == "own" else {}
        return {**own, **super().requires(config)}

    def begin(self, images: TrainingImages) -> None:
        """Take or fit the teacher's classifier."""
        self.teacher_classifier.begin(self.teacher, images)

    def forward(self, batch: Batch) -> Losses:
        """The weighted sum of distillation and cross-entropy."""
        (view,) = batch.views
        logits = self.classifier(self.student(view))
        target = self.teacher_classifier(self.taught(batch, "features"))
        distillation = class_kl(logits, target, self.config.temperature)
        labels = cross_entropy(logits, batch.labels)
        total = self.config.weight * distillation + self.config.ce_weight * labels
        return Losses(total, {"distillation": distillation, "cross_entropy": labels})
