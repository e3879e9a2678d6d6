"""Losses over classes by hand, and the classifier that is fitted to a teacher without one."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from loss_checks import check_gradient
from small_methods import SIDE, context, make_teacher, training_images
from torch import Tensor, nn

from trainables.core.errors import UserError
from trainables.methods.parts import teacher_classifier
from trainables.methods.parts.classifier import class_kl, cross_entropy, soft_cross_entropy
from trainables.methods.parts.teacher_classifier import Kind, TeacherClassifier, fit_logistic
from trainables.teachers.teacher import Teacher


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
    check_gradient(lambda s, t: class_kl(s, t, 2.0), [student], [teacher])
    check_gradient(lambda s, t: soft_cross_entropy(s, t, 1.0), [student], [teacher])


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
    images, plain = training_images(context(classes=4)), make_teacher()
    x, pixels = torch.randn(5, plain.feature_dim), torch.randn(2, 3, SIDE, SIDE)

    def begun(teacher: Teacher, kind: Kind) -> TeacherClassifier:
        classifier = TeacherClassifier(teacher, 4, kind)
        classifier.begin(teacher, images)
        return classifier

    fitted = begun(plain, "auto")
    known = images.labels >= 0
    features = images.encode(plain.features, images.ids[known])
    right = (fitted(features).argmax(1) == images.labels[known]).float().mean()
    assert right > 0.6  # noise images, learnt by heart as far as a linear map can

    # One that knows these classes is taken as it is; one for four other classes only if it is asked for.
    knowing, strange = (nn.Linear(plain.feature_dim, 4) for _ in range(2))
    with torch.no_grad():
        knowing.weight.copy_(2 * fitted.weight)
        knowing.bias.copy_(2 * fitted.bias)
        strange.weight.copy_(-fitted.weight)
        strange.bias.copy_(-fitted.bias)
    teacher = Teacher(plain.backbone, plain.head, classifier=knowing)
    torch.testing.assert_close(begun(teacher, "auto")(x), knowing(x).detach())
    torch.testing.assert_close(teacher.logits(pixels), begun(teacher, "own")(teacher.features(pixels)))
    other = Teacher(plain.backbone, plain.head, classifier=strange)
    assert torch.equal(begun(other, "auto")(x), fitted(x))
    torch.testing.assert_close(begun(other, "own")(x), strange(x).detach())

    with pytest.raises(UserError, match=r"config\.teacher_classifier: .*4 classes.*has none"):
        TeacherClassifier(plain, 4, "own")
    with pytest.raises(UserError, match="one for 4 classes"):
        TeacherClassifier(teacher, 3, "own")


def test_a_fit_is_made_once_for_a_file_and_images(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = make_teacher()
    file = Teacher(plain.backbone, plain.head, sha256="f" * 64)
    fits = []

    def counted(*arguments: Any) -> tuple[Tensor, Tensor]:
        fits.append(arguments)
        return fit_logistic(*arguments)

    monkeypatch.setattr(teacher_classifier, "fit_logistic", counted)
    monkeypatch.setattr(teacher_classifier, "_known", {})
    for around in (context(), context(), context(train_size=48)):
        TeacherClassifier(file, 4, "auto").begin(file, training_images(around))
    assert len(fits) == 2  # other images are another fit
