"""Learning from labels: a linear classifier on the student's features, and losses over classes.

A method of two kinds, with labels and without, takes `ce_weight` from `LabelledConfig` and the rest from
`Labelled`; at 0, the default of most, it needs no labels and has no classifier.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, ClassVar

import torch.distributed as dist
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from trainables.core.numerics import in_float32
from trainables.core.workers import world_size
from trainables.methods.base import Context, Losses, Method, MethodConfig
from trainables.networks.backbones import Backbone, seeded
from trainables.teachers.teacher import Teacher

UNLABELLED = -1


@in_float32
def cross_entropy(logits_BC: Tensor, labels_B: Tensor, smoothing: float = 0.0) -> Tensor:
    """Mean negative log-likelihood over the labelled samples of all workers' batches, nats; 0 where none is.

    Samples labelled -1 have no say; `smoothing` is the share of a target that is spread over all classes
    (Szegedy et al. 2016, arXiv 1512.00567, section 7). On a worker it is its own samples' sum over the mean
    number of labelled samples a worker, so that the average over workers is the mean over all.
    """
    known = labels_B != UNLABELLED
    count = known.sum().to(logits_BC.dtype)
    if world_size() > 1:
        dist.all_reduce(count)
        count = count / world_size()
    # clamp(0): a label that indexes nothing would be an error even where it is multiplied by 0.
    losses_B = F.cross_entropy(logits_BC, labels_B.clamp(min=0), reduction="none", label_smoothing=smoothing)
    return (losses_B * known).sum() / count.clamp(min=1 / world_size())


@in_float32
def soft_cross_entropy(logits_BC: Tensor, target_logits_BC: Tensor, temperature: float) -> Tensor:
    """`-sum softmax(target/T) log softmax(logits/T)`, mean over the batch, nats; the target is detached."""
    target = F.softmax(target_logits_BC.detach() / temperature, dim=1)
    return F.cross_entropy(logits_BC / temperature, target)


@in_float32
def class_kl(logits_BC: Tensor, target_logits_BC: Tensor, temperature: float) -> Tensor:
    """`T^2 KL(softmax(target/T) || softmax(logits/T))`, mean over the batch, nats; 0 at a perfect match.

    T^2 keeps the gradient's size while T is varied. No gradient reaches the target. Hinton et al. 2015
    (arXiv 1503.02531), section 2.
    """
    log_p = F.log_softmax(logits_BC / temperature, dim=1)
    log_t = F.log_softmax(target_logits_BC.detach() / temperature, dim=1)
    return temperature**2 * F.kl_div(log_p, log_t, reduction="batchmean", log_target=True)


class LabelledConfig(MethodConfig):
    """Fields of a method that can learn from labels beside its teacher."""

    ce_weight: Annotated[float, Field(ge=0)] = Field(
        0.0, description="weight of a linear classifier's cross-entropy on the labels; 0: labels unused"
    )


class Labelled(Method):
    """A method with a classifier on the student's features where `ce_weight` is above 0."""

    may_need: ClassVar[frozenset[str]] = frozenset({"labels"})
    config: LabelledConfig
    classifier: nn.Linear | None

    def __init__(
        self, config: MethodConfig, student: Backbone, teacher: Teacher | None, context: Context
    ) -> None:
        super().__init__(config, student, teacher, context)
        self.classifier = None
        if self.config.ce_weight > 0:
            self.classifier = linear_classifier(student, context)

    @classmethod
    def requires(cls, config: MethodConfig) -> Mapping[str, str]:
        assert isinstance(config, LabelledConfig)
        asked = {"labels": f"ce_weight: {config.ce_weight:g}"} if config.ce_weight > 0 else {}
        return {**asked, **super().requires(config)}

    def with_labels(
        self, total: Tensor, terms: Mapping[str, Tensor], features_BD: Tensor, labels_B: Tensor
    ) -> Losses:
        """The losses so far, and the classifier's cross-entropy where there is a classifier."""
        if self.classifier is None or self.config.ce_weight == 0:
            return Losses(total, dict(terms))
        loss = cross_entropy(self.classifier(features_BD), labels_B)
        return Losses(total + self.config.ce_weight * loss, {**terms, "cross_entropy": loss})

    def own_classifier(self) -> nn.Linear | None:
        return self.classifier


def linear_classifier(student: Backbone, context: Context) -> nn.Linear:
    """(B, feature_dim) -> (B, classes), initialised from the trial's seed."""
    with seeded(context.seed):
        return nn.Linear(student.feature_dim, context.classes)
