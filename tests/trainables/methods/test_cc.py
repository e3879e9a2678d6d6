"""CC: the kernel and its series by hand, what it is blind to, and the step by formula."""

from __future__ import annotations

import copy
import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from loss_checks import check_gradient
from small_methods import TEACHER, context, make_batch, make_method, train_steps
from torch import Tensor

from trainables.methods.cc import Cc, congruence, correlations
from trainables.networks.backbones import build_backbone
from trainables.teachers.teacher import Teacher


def random(seed: int, *shapes: tuple[int, int]) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(shape, generator=generator).double() for shape in shapes]


def test_correlations_by_hand() -> None:
    x = torch.tensor([[3.0, 0.0], [0.6, 0.8], [0.0, -2.0]])  # cosines .6, 0, -.8
    found = correlations(x, 0.4, 2)
    for (i, j), cosine in {(0, 0): 1.0, (0, 1): 0.6, (0, 2): 0.0, (1, 2): -0.8}.items():
        expected = math.exp(-0.8) * (1 + 0.8 * cosine + 0.32 * cosine**2)
        assert found[i, j].item() == found[j, i].item() == pytest.approx(expected, rel=1e-5)
    torch.testing.assert_close(correlations(x, 0.4, 1)[0, 1].item(), math.exp(-0.8) * 1.48)


@given(st.integers(2, 8), st.floats(0.05, 1.5), st.integers(0, 1000))
def test_the_series_comes_to_the_gaussian_kernel(size: int, gamma: float, seed: int) -> None:
    (x,) = random(seed, (size, 4))
    u = F.normalize(x, dim=1)
    gaussian = torch.exp(-gamma * torch.cdist(u, u) ** 2)
    for order in (1, 2, 10):
        error = (correlations(x, gamma, order) - gaussian).abs().max().item()
        remainder = (2 * gamma) ** (order + 1) / math.factorial(order + 1)  # Lagrange's, at cosine 1
        assert error <= remainder + 1e-9


def test_loss_by_hand() -> None:
    s, t = torch.tensor([[1.0, 0.0], [0.6, 0.8]]), torch.tensor([[1.0], [-1.0]])
    gap = math.exp(-0.8) * ((1 + 0.8 * 0.6 + 0.32 * 0.36) - (1 - 0.8 + 0.32))
    assert congruence(s, t, 0.4, 2).item() == pytest.approx(2 * gap**2 / 4, rel=1e-5)


@given(st.integers(2, 10), st.integers(2, 6), st.floats(1e-3, 1e3), st.integers(0, 1000))
def test_turning_and_scaling_either_space_changes_nothing(
    size: int, dim: int, scale: float, seed: int
) -> None:
    s, t, turn = random(seed, (size, dim), (size, 5), (dim, dim))
    moved = F.pad(scale * s @ torch.linalg.qr(turn).Q, (0, 2))
    torch.testing.assert_close(congruence(moved, t, 0.4, 2), congruence(s, t, 0.4, 2))
    torch.testing.assert_close(congruence(t, moved, 0.4, 2), congruence(t, s, 0.4, 2))
    assert congruence(moved, s, 0.4, 2).item() == pytest.approx(0.0, abs=1e-12)


@given(st.permutations(range(6)), st.integers(0, 1000))
def test_the_order_of_the_batch_changes_nothing(order: list[int], seed: int) -> None:
    s, t = random(seed, (6, 3), (6, 4))
    torch.testing.assert_close(congruence(s[order], t[order], 0.4, 2), congruence(s, t, 0.4, 2))


def test_gradient_reaches_the_student_alone() -> None:
    s, t = random(1, (5, 3), (5, 4))
    check_gradient(lambda s, t: congruence(s, t, 0.4, 2), [s], [t])


def test_a_constant_student_does_not_match() -> None:
    """What two trained embeddings could agree on costs something here: the teacher's features are given."""
    (t,) = random(2, (8, 4))
    assert congruence(torch.ones(8, 3).double(), t, 0.4, 2) > 0.01


def test_a_step_is_the_formula() -> None:
    method = make_method("cc", weight=3.0, gamma=0.7, ce_weight=0.5)
    train_steps(method, 1)
    batch = make_batch(method, seed=5)
    again, teacher = copy.deepcopy(method), method.teacher
    losses = method(batch)
    features = again.student(batch.views[0])

    def kernel(x: Tensor) -> Tensor:
        cosine = F.cosine_similarity(x[:, None], x[None], dim=2)
        return math.exp(-1.4) * (1 + 1.4 * cosine + 1.4**2 / 2 * cosine**2)

    gap = kernel(again.adapter(features)) - kernel(teacher.backbone(batch.views[0]))
    known = F.cross_entropy(again.classifier(features), batch.labels)
    torch.testing.assert_close(losses.terms["distillation"], (gap**2).sum() / 64, rtol=1e-3, atol=1e-6)
    torch.testing.assert_close(losses.total, 3 * (gap**2).sum() / 64 + 0.5 * known, rtol=1e-3, atol=1e-6)


def test_the_linear_layer_is_the_students_and_leads_to_the_teachers_width() -> None:
    method = make_method("cc")
    adapter, teacher = method.adapter, method.teacher
    assert (adapter.in_features, adapter.out_features) == (64, teacher.feature_dim)
    assert {name.split(".")[0] for name, _ in method.named_parameters()} == {"student", "adapter"}


def test_the_teacher_matches_itself() -> None:
    teacher = Teacher(build_backbone(TEACHER, 0), None)
    method = Cc(Cc.Config(), build_backbone(TEACHER, 0), teacher, context()).eval()
    with torch.no_grad():
        method.adapter.weight.copy_(torch.eye(teacher.feature_dim))
        method.adapter.bias.zero_()
        assert method(make_batch(method)).total.item() == pytest.approx(0.0, abs=1e-8)
