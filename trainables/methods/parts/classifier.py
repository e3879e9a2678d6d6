"""Learning from labels: a linear classifier on the student's features, and losses over classes.

A method that works with labels and without takes `ce_weight` from `LabelledConfig` and derives from
`Labelled`. With `ce_weight: 0`, mostly the default, it needs no labels and has no classifier.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

import torch.distributed as dist
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from trainables.core.numerics import in_float32
from trainables.core.workers import world_size
from trainables.methods.base import C, Context, Losses, Method, MethodConfig
from trainables.networks.backbones import Backbone, seeded

UNLABELLED = -1


@in_float32
def cross_entropy(logits_BC: Tensor, labels_B: Tensor, smoothing: float = 0.0) -> Tensor:
    """Mean negative log-likelihood over the labelled samples of all workers, nats; 0 if there is none.

    Samples with label -1 are left out. `smoothing` is the share of a target that is spread over all classes
    (Szegedy et al. 2016, arXiv 1512.00567, section 7). A worker returns the sum over its own samples, divided
    by the mean number of labelled samples of a worker. So the average over workers is the mean over all
    samples.
    """
    known = labels_B != UNLABELLED
    count = known.sum().to(logits_BC.dtype)
    if world_size() > 1:
        dist.all_reduce(count)
        count = count / world_size()
    # clamp: torch refuses the label -1, although its loss is multiplied by 0 below.
    losses_B = F.cross_entropy(logits_BC, labels_B.clamp(min=0), reduction="none", label_smoothing=smoothing)
    return (losses_B * known).sum() / count.clamp(min=1 / world_size())


@in_float32
def soft_cross_entropy(logits_BC: Tensor, target_logits_BC: Tensor, temperature: float) -> Tensor:
    """`-sum softmax(target/T) log softmax(logits/T)`, mean over the batch, nats.

    No gradient reaches the target.
    """
    target = F.softmax(target_logits_BC.detach() / temperature, dim=1)
    return F.cross_entropy(logits_BC / temperature, target)


@in_float32
def class_kl(logits_BC: Tensor, target_logits_BC: Tensor, temperature: float) -> Tensor:
    """`T^2 KL(softmax(target/T) || softmax(logits/T))`, mean over the batch, nats; 0 at a perfect match.

    With T^2 the size of the gradient does not depend on T. No gradient reaches the target. Hinton et al. 2015
    (arXiv 1503.02531), section 2.
    """
    log_p = F.log_softmax(logits_BC / temperature, dim=1)
    log_t = F.log_softmax(target_logits_BC.detach() / temperature, dim=1)
    return temperature**2 * F.kl_div(log_p, log_t, reduction="batchmean", log_target=True)


class Classified(Method[C]):
    """A method that always has a linear classifier on the student's features."""

    classifier: nn.Linear

    def build(self) -> None:
        """Make the classifier."""
        self.classifier = linear_classifier(self.student, self.context)

    def own_classifier(self) -> nn.Linear:
        """The classifier. See `Method.own_classifier`."""
        return self.classifier


class LabelledConfig(MethodConfig):
    """Settings of a method that can learn from labels in addition to its teacher."""

    ce_weight: float = Field(
        0.0, ge=0, description="weight of a linear classifier's cross-entropy on the labels; 0: labels unused"
    )


L = TypeVar("L", bound=LabelledConfig)


class Labelled(Method[L]):
    """A method that has a classifier on the student's features if `ce_weight` is above 0."""

    may_need = frozenset({"labels"})
    classifier: nn.Linear | None

    def build(self) -> None:
        """Make the classifier, where there is one."""
        self.classifier = None
        if self.config.ce_weight > 0:
            self.classifier = linear_classifier(self.student, self.context)

    @classmethod
    def requires(cls, config: L) -> Mapping[str, str]:
        """Labels, if `ce_weight` is above 0; and `needs`."""
        asked = {"labels": f"ce_weight: {config.ce_weight:g}"} if config.ce_weight > 0 else {}
        return {**asked, **super().requires(config)}

    def with_labels(
        self, total: Tensor, terms: Mapping[str, Tensor], features_BD: Tensor, labels_B: Tensor
    ) -> Losses:
        """Add the classifier's cross-entropy, if `ce_weight` is above 0, to the losses so far."""
        if self.classifier is None or self.config.ce_weight == 0:
            return Losses(total, dict(terms))
        loss = cross_entropy(self.classifier(features_BD), labels_B)
        return Losses(total + self.config.ce_weight * loss, {**terms, "cross_entropy": loss})

    def own_classifier(self) -> nn.Linear | None:
        """The classifier, where there is one. See `Method.own_classifier`."""
        return self.classifier


def linear_classifier(student: Backbone, context: Context) -> nn.Linear:
    """(B, feature_dim) -> (B, classes). Its weights depend on the trial's seed alone.

    It is seeded by itself, so it takes no random numbers from the modules that a method builds after it.
    """
    with seeded(context.seed):
        return nn.Linear(student.feature_dim, context.classes)
