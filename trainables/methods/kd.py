"""KD: the student's class probabilities follow the teacher's, softened by a temperature.

Hinton et al. 2015, "Distilling the knowledge in a neural network" (arXiv 1503.02531), with the weights of
`HobbitLong/RepDistiller` (Tian et al. 2020, arXiv 1910.10699).

    z = W f(x) + b      v: the teacher's logits                                        (one view x, shared)
    L = ce_weight CE(z, y) + weight T^2 KL(softmax(v/T) || softmax(z/T))

A teacher that was not trained on the classes of the data has no logits for them; it gets a logistic
regression fitted to its frozen features of the training images (`teacher_classifier`). Labels are always
needed, for they say what the classes are; images without one are still distilled.

Preset `paper` has RepDistiller's settings on CIFAR-100 (lr .01 for MobileNets and ShuffleNets).

Expect on digits (preset `digits`, half-width test_efficientnet, four seeds): 5-shot ridge 97 to 98.5 from a
test_resnet taught by 64 epochs of MoCo at view strength 1; untrained 69, `supervised` 97 to 98.5. At
temperature 2 it is 96 to 98, at the paper's 4 95 to 98, and there more training does not help: 96.5 after 48
epochs, where `supervised` has 99.7 (two seeds). Every image is labelled here, and the classifier fitted to
this teacher is right on 97 % of their views, so it says less than the labels do. From a teacher of 16
supervised epochs, 97 and 98 at either temperature.

    raykd run search_spaces/kd.yaml
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar

from pydantic import Field
from torch import nn

from trainables.data.encode import TrainingImages
from trainables.methods.base import Batch, Context, Losses, Method, MethodConfig
from trainables.methods.parts.classifier import class_kl, cross_entropy, linear_classifier
from trainables.methods.parts.recipes import REPDISTILLER, on_digits
from trainables.methods.parts.teacher_classifier import Kind, TeacherClassifier
from trainables.networks.backbones import Backbone
from trainables.teachers.teacher import Teacher


class Kd(Method):
    name = "kd"
    summary = "KD: the teacher's softened class probabilities, beside the labels"
    needs = frozenset({"teacher", "labels"})
    may_need = frozenset({"teacher_classifier"})
    views = 1

    class Config(MethodConfig):
        temperature: Annotated[float, Field(gt=0)] = Field(4.0, description="of both softmaxes")
        weight: Annotated[float, Field(gt=0)] = Field(0.9, description="of the distillation term")
        ce_weight: Annotated[float, Field(ge=0)] = Field(
            0.1, description="of the cross-entropy on the labels; 0: the teacher's classes alone"
        )
        teacher_classifier: Kind = "auto"

    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "paper": {
            "config": {"temperature": 4.0, "weight": 0.9, "ce_weight": 0.1},
            **REPDISTILLER,
        },
        "digits": {
            "config": {"temperature": 1.0, "weight": 0.9, "ce_weight": 0.1},
            **on_digits(),
        },
    }
    config: Config
    teacher: Teacher

    def __init__(
        self, config: MethodConfig, student: Backbone, teacher: Teacher | None, context: Context
    ) -> None:
        super().__init__(config, student, teacher, context)
        self.classifier = linear_classifier(student, context)
        kind = self.config.teacher_classifier
        self.teacher_classifier = TeacherClassifier(self.teacher, context.classes, kind)

    @classmethod
    def requires(cls, config: MethodConfig) -> Mapping[str, str]:
        assert isinstance(config, cls.Config)
        own = {"teacher_classifier": "teacher_classifier: own"} if config.teacher_classifier == "own" else {}
        return {**own, **super().requires(config)}

    def begin(self, images: TrainingImages) -> None:
        self.teacher_classifier.begin(self.teacher, images)

    def forward(self, batch: Batch) -> Losses:
        (view,) = batch.views
        logits = self.classifier(self.student(view))
        target = self.teacher_classifier(self.teacher.features(view))
        distillation = class_kl(logits, target, self.config.temperature)
        labels = cross_entropy(logits, batch.labels)
        total = self.config.weight * distillation + self.config.ce_weight * labels
        return Losses(total, {"distillation": distillation, "cross_entropy": labels})

    def own_classifier(self) -> nn.Linear:
        return self.classifier
