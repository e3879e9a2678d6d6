"""KD: its temperature and weights, whose classifier speaks for the teacher, and the step by formula."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from small_methods import adam_steps, make_batch, make_method, make_teacher, train_steps
from tiny_trials import tiny
from torch import Tensor

from trainables.core.errors import UserError
from trainables.methods.kd import Kd
from trainables.methods.parts.classifier import class_kl
from trainables.planning.check import TrialChecker

TAUGHT_BY_MOCO = {"arch": "test_resnet", "train": {"method": "moco", "preset": "digits", "epochs": 1}}


@given(st.floats(0.5, 20), st.integers(2, 6), st.integers(0, 1000))
def test_the_teachers_own_logits_cost_nothing(temperature: float, classes: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    target = 3 * torch.randn(4, classes, generator=generator)
    shift = torch.randn(4, 1, generator=generator)  # a softmax does not see it
    torch.testing.assert_close(
        class_kl(target + shift, target, temperature), torch.zeros(()), atol=2e-4, rtol=0
    )
    assert class_kl(torch.randn(4, classes, generator=generator), target, temperature) > -1e-4


def test_a_hot_temperature_is_half_the_squared_error_of_centred_logits() -> None:
    """Hinton et al. 2015, section 2.1: the gradient tends to (z - v) / N for logits with mean 0."""
    z, v = (torch.randn(1, 5, generator=torch.Generator().manual_seed(s)).double() for s in (0, 1))
    z, v = (z - z.mean()).requires_grad_(), v - v.mean()
    class_kl(z, v, 1e3).backward()
    assert z.grad is not None
    torch.testing.assert_close(z.grad, (z.detach() - v) / 5, rtol=1e-2, atol=1e-4)


@pytest.mark.parametrize("kind", ["own", "fitted"])
def test_a_step_is_the_formula(kind: str) -> None:
    method = make_method("kd", temperature=3.0, weight=0.6, ce_weight=0.7, teacher_classifier=kind)
    train_steps(method, 1)
    assert method.views == 1 and method.teacher is not None
    batch = make_batch(method, seed=5)
    batch = batch._replace(labels=torch.tensor([0, 1, -1, 3, 0, 1, 2, 3]))
    again, teacher = copy.deepcopy(method), method.teacher
    speaks = teacher.classifier if kind == "own" else method.teacher_classifier
    v = F.linear(teacher.backbone(batch.views[0]), speaks.weight, speaks.bias)
    z = again.student(batch.views[0]) @ again.classifier.weight.T + again.classifier.bias
    p, log_p, log_q = (v / 3).softmax(1), (v / 3).log_softmax(1), (z / 3).log_softmax(1)
    kl = 9 * (p * (log_p - log_q)).sum(1).mean()
    known = batch.labels >= 0
    right = -z.log_softmax(1)[range(8), batch.labels.clamp(min=0)][known].mean()
    losses = method(batch)
    torch.testing.assert_close(losses.total, 0.6 * kl + 0.7 * right)
    torch.testing.assert_close(losses.terms["distillation"], kl)
    torch.testing.assert_close(losses.terms["cross_entropy"], right)


def test_whose_classifier_speaks() -> None:
    def logits(teacher_classes: int, kind: str) -> Tensor:
        method = make_method("kd", teacher=make_teacher(classes=teacher_classes), teacher_classifier=kind)
        x = torch.randn(3, method.teacher.feature_dim, generator=torch.Generator().manual_seed(0))
        found: Tensor = method.teacher_classifier(x)
        return found

    assert torch.equal(logits(4, "auto"), logits(4, "fitted"))  # its own is untrained: right by chance
    assert torch.equal(logits(0, "auto"), logits(4, "fitted"))
    assert torch.equal(logits(6, "auto"), logits(4, "fitted"))  # for other classes than the data's
    assert not torch.allclose(logits(4, "own"), logits(4, "fitted"))
    with pytest.raises(UserError, match=r"config\.teacher_classifier: .*4 classes.*one for 6 classes"):
        logits(6, "own")


def test_images_without_a_label_are_distilled() -> None:
    method = make_method("kd")
    batch = make_batch(method)
    losses = method(batch._replace(labels=torch.full((8,), -1)))
    assert losses.terms["cross_entropy"] == 0 and losses.terms["distillation"] > 0
    torch.testing.assert_close(losses.total, 0.9 * losses.terms["distillation"])


def test_needs() -> None:
    assert Kd.requires(Kd.Config()) == {"teacher": "", "labels": ""}
    own = Kd.requires(Kd.Config(teacher_classifier="own", ce_weight=0))
    assert own == {"teacher": "", "labels": "", "teacher_classifier": "teacher_classifier: own"}
    taught = tiny("kd", teacher=TAUGHT_BY_MOCO)
    TrialChecker().check(taught)
    unsaid = taught.model_copy(update={"config": {**taught.config, "teacher_classifier": "own"}})
    with pytest.raises(UserError, match=r"teacher\.train\.method: trains no classifier.*supervised"):
        TrialChecker().check(unsaid)


def test_loss_falls() -> None:
    method = make_method("kd", teacher_classifier="fitted")
    first, *_, last = adam_steps(method, 30, lr=1e-2)
    assert last["distillation"] < first["distillation"] / 4
