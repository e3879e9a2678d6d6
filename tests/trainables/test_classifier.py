"""Losses over classes by hand, and the classifier that is fitted to a teacher without one."""

from __future__ import annotations

import math

import pytest
import torch
from small_methods import SIDE, context, make_teacher, training_images
from torch import nn

from trainables.errors import UserError
from trainables.parts.classifier import class_kl, cross_entropy, soft_cross_entropy
from trainables.parts.teacher_classifier import TeacherClassifier, fit_logistic
from trainables.teachers import Teacher


def test_cross_entropy_by_hand() -> None:
    logits = torch.tensor([[math.log(3.0), 0.0], [0.0, 0.0], [5.0, -5.0]])
    # p = 3/4, then 1/2; the third has no label.
    found = cross_entropy(logits, torch.tensor([0, 1, -1]))
    assert found.item() == pytest.approx((math.log(4 / 3) + math.log(2)) / 2)
    logits.requires_grad_()
    nothing = cross_entropy(logits, torch.tensor([-1, -1, -1]))
    nothing.backward()
    assert nothing.item() == 0.0 and not logits.grad.any()


def test_soft_losses_by_hand() -> None:
    student, teacher = torch.tensor([[0.0, 0.0]]), torch.tensor([[2 * math.log(3.0), 0.0]])
    # At temperature 2 the target is (3/4, 1/4), the student undecided.
    assert soft_cross_entropy(student, teacher, 2.0).item() == pytest.approx(math.log(2))
    kl = 0.75 * math.log(0.75 / 0.5) + 0.25 * math.log(0.25 / 0.5)
    assert class_kl(student, teacher, 2.0).item() == pytest.approx(4 * kl, rel=1e-5)
    assert class_kl(teacher + 1, teacher, 2.0).item() == pytest.approx(0.0, abs=1e-6)
    student.requires_grad_()
    teacher.requires_grad_()
    (class_kl(student, teacher, 2.0) + soft_cross_entropy(student, teacher, 1.0)).backward()
    assert student.grad is not None and teacher.grad is None


@pytest.mark.parametrize("classes", [2, 3])
def test_fitted_classifier_separates_what_can_be_separated(classes: int) -> None:
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(60) % classes
    # A shift and a scale that a classifier on raw features would choke on, and a constant feature.
    features = torch.randn(60, 4, generator=generator) + 8 * torch.eye(4)[labels]
    features = features * torch.tensor([1.0, 1e3, 1e-3, 1.0]) + torch.tensor([50.0, 0.0, 0.0, 0.0])
    features = torch.cat([features, torch.full((60, 1), 7.0)], 1)
    weight, bias = fit_logistic(features, labels, classes + 1)
    logits = features @ weight.T + bias
    assert logits.argmax(1).tolist() == labels.tolist()
    assert weight.isfinite().all() and logits.softmax(1)[:, classes].max() < 1e-6  # it has no sample


def test_two_classes_have_the_probabilities_of_the_regression() -> None:
    from sklearn.linear_model import LogisticRegression

    generator = torch.Generator().manual_seed(1)
    labels = torch.arange(40) % 2
    features = torch.randn(40, 3, generator=generator) + labels[:, None]
    weight, bias = fit_logistic(features, labels, 2)
    standard = ((features - features.mean(0)) / features.std(0, correction=0)).numpy()
    expected = LogisticRegression(max_iter=1000).fit(standard, labels.numpy()).predict_proba(standard)
    torch.testing.assert_close(
        (features @ weight.T + bias).softmax(1), torch.from_numpy(expected).float(), atol=1e-4, rtol=1e-3
    )


def test_own_classifier_or_a_fitted_one() -> None:
    around = context(classes=4)
    images, plain = training_images(around), make_teacher()
    own = nn.Linear(plain.feature_dim, 4)
    teacher = Teacher(plain.backbone, plain.head, classifier=own)
    x = torch.randn(5, plain.feature_dim)
    taken = TeacherClassifier(teacher, 4, "auto")
    taken.begin(teacher, images)
    torch.testing.assert_close(taken(x), own(x).detach())
    pixels = torch.randn(2, 3, SIDE, SIDE)
    torch.testing.assert_close(teacher.logits(pixels), taken(teacher.features(pixels)))

    fitted = TeacherClassifier(plain, 4, "auto")
    fitted.begin(plain, images)
    known = images.labels >= 0
    features = images.encode(plain.features, images.ids[known])
    right = (fitted(features).argmax(1) == images.labels[known]).float().mean()
    assert right > 0.6  # noise images, learnt by heart as far as a linear map can
    assert not torch.allclose(fitted(x), taken(x))

    with pytest.raises(UserError, match=r"config\.teacher_classifier: .*4 classes.*has none"):
        TeacherClassifier(plain, 4, "own")
    with pytest.raises(UserError, match="one for 4 classes"):
        TeacherClassifier(teacher, 3, "own")
