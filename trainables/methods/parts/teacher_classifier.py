"""The class predictions of a teacher, by its own classifier or by one that is fitted to its features.

A self-supervised teacher has no classifier. A logistic regression on its frozen features makes one. So any
teacher can serve methods that learn from a teacher's classes if the images have labels.
"""

from __future__ import annotations

import warnings
from typing import Annotated, Any, Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from trainables.core.errors import UserError
from trainables.data.encode import TrainingImages
from trainables.teachers.teacher import Teacher

Kind = Annotated[
    Literal["auto", "own", "fitted"],
    Field(description="own: what the teacher was trained with; fitted: to its features; auto: own if any"),
]
_MOST = 50_000  # images that a classifier is fitted to
_CHECKED = 2_000  # images on which a teacher's own classifier is tried
_STEPS = 1000  # of the logistic regression's solver


class TeacherClassifier(nn.Module):
    """Teacher features (B, D) -> logits (B, C), without gradient.

    Kind `own` is the classifier that the teacher was trained with. Kind `fitted` is a logistic regression on
    the training labels. Kind `auto` is the own one if it has as many classes as the data and is right on
    these images more than twice as often as chance; otherwise the teacher's classes are others, and it is
    fitted. The weights are 0 before `begin`. Raises `UserError` for `own` if the teacher has no classifier
    for so many classes.
    """

    weight: Tensor  # (C, D)
    bias: Tensor  # (C,)

    def __init__(self, teacher: Teacher, classes: int, kind: Kind) -> None:
        super().__init__()
        own = teacher.classifier
        fits = own is not None and own.out_features == classes
        if kind == "own" and not fits:
            has = f"one for {own.out_features} classes" if own is not None else "none"
            raise UserError(
                "config.teacher_classifier",
                f"the data has {classes} classes, and of its own the teacher has {has}",
                value=kind,
                expected="'fitted', or 'auto'",
            )
        self.kind = kind if fits else "fitted"
        self.register_buffer("weight", torch.zeros(classes, teacher.feature_dim))
        self.register_buffer("bias", torch.zeros(classes))

    def begin(self, teacher: Teacher, images: TrainingImages) -> None:
        """Take or fit the weights. They are buffers, so a resumed trial keeps them. For `Method.begin`."""
        own = teacher.classifier
        if own is not None and self.kind != "fitted":
            self._take(own.weight.detach(), None if own.bias is None else own.bias.detach())
            if self.kind == "own" or self._knows(teacher, images):
                return
        self._take(*_fitted(teacher, images))

    def _take(self, weight: Tensor, bias: Tensor | None) -> None:
        self.weight.copy_(weight)
        self.bias.copy_(torch.zeros_like(self.bias) if bias is None else bias)

    def _knows(self, teacher: Teacher, images: TrainingImages) -> bool:
        ids, labels = _some(images, _CHECKED)
        found = self(images.encode(teacher.features, ids)).argmax(1).cpu()
        return bool((found == labels).double().mean() > 2 / images.classes)

    @torch.no_grad()
    def forward(self, features_BD: Tensor) -> Tensor:
        """Logits (B, C) of the teacher's features (B, D)."""
        return F.linear(features_BD, self.weight.to(features_BD.dtype), self.bias.to(features_BD.dtype))


def fit_logistic(features_ND: Tensor, labels_N: Tensor, classes: int) -> tuple[Tensor, Tensor]:
    """Weights (C, D) and bias (C,) of a logistic regression (L2, C = 1) on standardised features.

    The bias of a class without a sample is so low that the class is never predicted.
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    x = features_ND.double().cpu().numpy()
    mean, deviation = x.mean(0), x.std(0)
    deviation[deviation <= 1e-6 * np.abs(mean)] = 1.0  # constant, apart from float32 rounding
    model: Any = LogisticRegression  # scikit-learn has no types
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # cut off after _STEPS: good enough to teach
        fitted = model(max_iter=_STEPS).fit((x - mean) / deviation, labels_N.cpu().numpy())
    coefficients, intercepts = fitted.coef_ / deviation, fitted.intercept_ - fitted.coef_ @ (mean / deviation)
    if len(fitted.classes_) == 2:  # one logit, for the second class
        coefficients = np.stack([-coefficients[0] / 2, coefficients[0] / 2])
        intercepts = np.array([-intercepts[0] / 2, intercepts[0] / 2])
    weight = np.zeros((classes, x.shape[1]))
    bias = np.full(classes, intercepts.min() - 100.0)
    weight[fitted.classes_], bias[fitted.classes_] = coefficients, intercepts
    return torch.from_numpy(weight).float(), torch.from_numpy(bias).float()


_known: dict[tuple[Any, ...], tuple[Tensor, Tensor]] = {}


def _fitted(teacher: Teacher, images: TrainingImages) -> tuple[Tensor, Tensor]:
    """The fit for this teacher and these images, remembered because every trial of a sweep needs it."""
    key = (
        teacher.sha256,
        teacher.backbone.inputs._replace(crop_share=None),
        teacher.batch_norm,
        images.fingerprint,
    )
    if not teacher.sha256 or key not in _known:
        ids, labels = _some(images, _MOST)
        found = fit_logistic(images.encode(teacher.features, ids), labels, images.classes)
        if not teacher.sha256:
            return found
        _known[key] = found
    return _known[key]


def _some(images: TrainingImages, most: int) -> tuple[Tensor, Tensor]:
    """Ids and labels of at most `most` labelled images, evenly spread over the data set."""
    known = images.labels >= 0
    ids, labels = images.ids[known], images.labels[known]
    if len(ids) > most:
        chosen = torch.linspace(0, len(ids) - 1, most).long()
        ids, labels = ids[chosen], labels[chosen]
    return ids, labels
