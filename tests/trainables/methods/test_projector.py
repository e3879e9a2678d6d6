"""Projector distillation: losses by hand, the golden checks of the soft maximum, the step by formula."""

from __future__ import annotations

import copy
import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from loss_checks import check_gradient
from small_methods import (
    STUDENT,
    WIDE_TEACHER,
    adam_steps,
    context,
    make_batch,
    make_method,
    make_teacher,
    train_steps,
)
from torch import Tensor, nn

from trainables.core.errors import UserError
from trainables.methods.projector import Projector, correlation_log_sum, l1_distance, log_sum
from trainables.networks.backbones import BackboneFacts, build_backbone
from trainables.planning.check import TrialChecker
from trainables.training.resolve import resolve

alphas = st.sampled_from([1.0, 1.5, 2.0, 4.0])


def normal(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_losses_by_hand() -> None:
    s, t = torch.tensor([[1.0, -1.0], [0.0, 2.0]]), torch.tensor([[0.0, 1.0], [3.0, 2.0]])
    # Errors 1, 2 and 3, 0.
    assert l1_distance(s, t).item() == pytest.approx((3 + 3) / 2)
    assert log_sum(s, t, 2.0, 0.5).item() == pytest.approx(math.log((5 + 9) / 2 + 0.5))
    assert log_sum(s, t, 4.0, 1e-5).item() == pytest.approx(math.log((17 + 81) / 2))
    # Products 0, -1 and 0, 4: cross-correlations 0 and 1.5, which miss 1 by 1 and .5.
    assert correlation_log_sum(s, t, 4.0, 0.5).item() == pytest.approx(math.log(1 + 1 / 16 + 0.5))
    assert correlation_log_sum(s, t, 1.0, 0.5).item() == pytest.approx(math.log(1.5 + 0.5))


@given(alphas, st.floats(0.01, 10), st.integers(0, 1000))
def test_an_error_ten_times_as_large_has_a_tenth_of_the_gradient(
    alpha: float, size: float, seed: int
) -> None:
    t, error = normal(seed, 4, 6).double(), size * normal(seed + 1, 4, 6).double()

    def gradient(scale: float) -> Tensor:
        s = (t + scale * error).requires_grad_()
        (found,) = torch.autograd.grad(log_sum(s, t, alpha, 1e-300), s)
        return found

    torch.testing.assert_close(gradient(10.0), gradient(1.0) / 10)


@given(alphas, st.integers(0, 1000))
def test_it_is_the_log_of_a_norm(alpha: float, seed: int) -> None:
    error = normal(seed, 1, 8).double()
    expected = alpha * torch.linalg.vector_norm(error, alpha).log()
    torch.testing.assert_close(log_sum(error, torch.zeros_like(error), alpha, 1e-300), expected)


@given(st.integers(0, 1000))
def test_a_large_alpha_hears_the_largest_error_alone(seed: int) -> None:
    error = normal(seed, 1, 8).double()
    loss = log_sum(error, torch.zeros_like(error), 60.0, 1e-300) / 60
    excess = loss.item() - error.abs().max().log().item()
    assert -1e-9 < excess < math.log(8) / 60 + 1e-9


@given(alphas, st.integers(1, 5), st.integers(0, 1000))
def test_a_perfect_match_is_finite(alpha: float, batch: int, seed: int) -> None:
    s = normal(seed, batch, 6).requires_grad_()
    loss = log_sum(s, s.detach(), alpha, 1e-5)
    loss.backward()
    assert loss.item() == pytest.approx(math.log(1e-5)) and s.grad is not None and not s.grad.any()
    z = normal(seed, 8, 6).double()
    z = ((z - z.mean(0)) / z.std(0, correction=0)).requires_grad_()
    loss = correlation_log_sum(z, z.detach(), alpha, 1e-5)
    loss.backward()
    assert loss.item() == pytest.approx(math.log(1e-5), abs=1e-6)
    assert z.grad is not None and z.grad.isfinite().all()


@pytest.mark.parametrize("loss", ["mse", "l1", "logsum", "corr_logsum"])
def test_after_batch_normalisation_scale_and_shift_of_either_side_are_nothing(loss: str) -> None:
    method = make_method("projector", teacher=make_teacher(), loss=loss)
    s, t = normal(0, 16, 24), normal(1, 16, 24)
    plain = method._distance(method.normalise, s, t)
    for scale, shift in ((10.0, 0.0), (0.5, -3.0), (2.0, 40.0)):
        torch.testing.assert_close(
            method._distance(method.normalise, scale * s + shift, t), plain, rtol=1e-3, atol=1e-3
        )
        torch.testing.assert_close(
            method._distance(method.normalise, s, scale * t + shift), plain, rtol=1e-3, atol=1e-3
        )
    assert method._distance(method.normalise, s + t, t) < plain - 0.1


def test_gradient_reaches_the_student_alone() -> None:
    s, t = normal(0, 4, 3), normal(1, 4, 3)
    check_gradient(l1_distance, [s], [t])
    check_gradient(lambda s, t: log_sum(s, t, 4.0, 1e-5), [s], [t])
    check_gradient(lambda s, t: correlation_log_sum(s, t, 4.0, 1e-5), [s], [t])


def normalised(kind: str, x: Tensor) -> Tensor:
    """By hand, from the definitions."""
    if kind == "bn":
        return (x - x.mean(0)) / (x.var(0, correction=0) + 1e-4).sqrt()
    if kind == "group":
        parts = x.view(len(x), 4, -1)
        deviation = (parts.var(2, correction=0, keepdim=True) + 1e-4).sqrt()
        return ((parts - parts.mean(2, keepdim=True)) / deviation).flatten(1)
    return x / x.norm(dim=1, keepdim=True) if kind == "l2" else x


def distance(kind: str, s: Tensor, t: Tensor) -> Tensor:
    if kind == "corr_logsum":
        return (((s * t).mean(0) - 1).abs() ** 3).sum().add(1e-5).log()
    if kind == "logsum":
        return ((s - t).abs() ** 3).sum(1).mean().add(1e-5).log()
    return ((s - t) ** 2 if kind == "mse" else (s - t).abs()).sum(1).mean()


@pytest.mark.parametrize(
    ("projector", "normalisation", "loss"),
    [
        ("none", "l2", "logsum"),
        ("linear", "bn", "corr_logsum"),
        ("linear", "group", "mse"),
        ("mlp", "bn", "logsum"),
        ("linear", "none", "l1"),
    ],
)
def test_a_step_is_the_formula(projector: str, normalisation: str, loss: str) -> None:
    settings: dict[str, Any] = {"projector": projector, "normalisation": normalisation, "loss": loss}
    teacher = make_teacher(spec=WIDE_TEACHER)
    method = make_method("projector", teacher=teacher, **settings, alpha=3.0, weight=0.7)
    train_steps(method, 1)
    assert method.views == 1 and method.teacher is not None and method.classifier is None
    batch = make_batch(method, seed=5)
    again = copy.deepcopy(method)
    z = again.student(batch.views[0])
    for layer in {"none": [], "linear": [again.projector]}.get(projector, again.projector):
        z = z.relu() if isinstance(layer, nn.ReLU) else z @ layer.weight.T + layer.bias
    s, t = normalised(normalisation, z), normalised(normalisation, teacher.backbone(batch.views[0]))
    losses = method(batch)
    torch.testing.assert_close(losses.terms["distillation"], distance(loss, s, t), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(losses.total, 0.7 * losses.terms["distillation"])


def test_a_step_with_labels_is_the_sum_of_its_terms() -> None:
    weights = {"weight": 2.0, "ce_weight": 0.5, "kl_weight": 3.0}
    method = make_method("projector", temperature=2.0, teacher_classifier="own", **weights)
    batch, teacher = make_batch(method, seed=5), method.teacher
    assert teacher is not None
    again = copy.deepcopy(method)
    features = again.student(batch.views[0])
    z = features @ again.classifier.weight.T + again.classifier.bias
    v = teacher.classifier(teacher.backbone(batch.views[0])) / 2
    kl = 4 * (v.softmax(1) * (v.log_softmax(1) - (z / 2).log_softmax(1))).sum(1).mean()
    ce = -z.log_softmax(1)[range(8), batch.labels].mean()
    losses = method(batch)
    torch.testing.assert_close(losses.terms["class_kl"], kl)
    torch.testing.assert_close(losses.terms["cross_entropy"], ce)
    torch.testing.assert_close(losses.total, 2 * losses.terms["distillation"] + 0.5 * ce + 3 * kl)
    assert method.own_classifier() is method.classifier


@pytest.mark.parametrize("given", [{"ce_weight": 1.0}, {"kl_weight": 1.0}])
def test_either_term_with_labels_alone(given: dict[str, float]) -> None:
    method = make_method("projector", **given)
    losses = method(make_batch(method))
    losses.total.backward()
    assert len(losses.terms) == 2
    assert all(p.grad is not None and p.grad.any() for p in method.classifier.parameters())


def test_needs() -> None:
    def needs(**settings: Any) -> dict[str, str]:
        return dict(Projector.requires(Projector.Config(**settings)))

    assert needs() == needs(teacher_classifier="own") == {"teacher": ""}
    assert needs(ce_weight=1) == {"teacher": "", "labels": "ce_weight: 1"}
    assert needs(kl_weight=2) == {"teacher": "", "labels": "kl_weight: 2"}
    own = needs(kl_weight=2, teacher_classifier="own")
    assert own == {
        "teacher": "",
        "labels": "kl_weight: 2",
        "teacher_classifier": "teacher_classifier: own",
    }


def test_widths_that_differ_are_refused_without_a_projector() -> None:
    with pytest.raises(UserError, match=r"config\.projector: .*64 dimensions and the teacher's 24"):
        config = Projector.Config(projector="none")
        Projector(config, build_backbone(STUDENT, 0), make_teacher(), context())
    trial = {
        "method": "projector",
        "student": {"arch": "test_efficientnet", "options": {"channel_multiplier": 0.5}},
        "teacher": {"arch": "test_resnet", "train": {"method": "moco", "preset": "digits", "epochs": 1}},
        "config": {"projector": "none"},
        "epochs": 1,
    }
    with pytest.raises(UserError, match=r"config\.projector: .*128 dimensions and the teacher's 96"):
        TrialChecker().check(resolve(trial))


def _facts(width: int) -> BackboneFacts:
    return BackboneFacts(width, 0, 0, False, (), ())


def test_settings_that_cannot_work_together_are_refused() -> None:
    around = context(student=_facts(64), teacher=_facts(24))
    Projector.check(Projector.Config(normalisation="group", groups=8), around)
    for groups in (16, 24):
        with pytest.raises(UserError, match=r"config\.groups: .*24 dimensions.* divisor of 24.* 12"):
            Projector.check(Projector.Config(normalisation="group", groups=groups), around)
    Projector.check(Projector.Config(groups=16), around)  # unused
    for kind in ("none", "l2", "group"):
        config = Projector.Config(loss="corr_logsum", normalisation=kind, groups=8)
        with pytest.raises(UserError, match=r"config\.normalisation: .*`loss: corr_logsum`.*'bn'"):
            Projector.check(config, around)


@pytest.mark.parametrize("epsilon", [0.0, 1e-4, 0.5])
def test_what_is_added_to_the_variance_is_settable(epsilon: float) -> None:
    """`corr_logsum` by formula: with nothing added, as published for DeiT, it is another number."""
    method = make_method("projector", loss="corr_logsum", bn_epsilon=epsilon)
    s, t = (torch.randn(16, method.teacher.feature_dim) * 0.1 for _ in range(2))

    def normalised(x: Tensor) -> Tensor:
        return (x - x.mean(0)) / (x.var(0, correction=0) + epsilon).sqrt()

    c = (normalised(s) * normalised(t)).mean(0)
    torch.testing.assert_close(
        method._distance(method.normalise, s, t), ((c - 1).abs().pow(4).sum() + 1e-5).log()
    )


def test_a_constant_dimension_is_finite_with_nothing_added_to_the_variance() -> None:
    """Published, it is 0 / 0 there; dead features behind a ReLU are such dimensions."""
    method = make_method("projector", loss="corr_logsum", bn_epsilon=0.0)
    normalised = method.normalise(torch.cat([torch.full((8, 1), 3.0), torch.randn(8, 23)], 1))
    assert torch.equal(normalised[:, 0], torch.zeros(8)) and torch.isfinite(normalised).all()


@pytest.mark.parametrize("loss", ["mse", "l1", "logsum", "corr_logsum"])
def test_loss_falls(loss: str) -> None:
    method = make_method("projector", loss=loss)
    first, *_, last = (step["total"] for step in adam_steps(method))
    # A log falls by log 2 where what it is the log of halves.
    assert last < (first - math.log(2) if "log" in loss else first / 2)
