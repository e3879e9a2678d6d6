"""SPKD: its loss by hand, what changes it and what does not, and a step of it on features and on maps."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from loss_checks import check_gradient
from small_methods import make_batch, make_method

from trainables.methods.spkd import Spkd, similarity_loss

seeds = st.integers(0, 1000)


def features(seed: int, size: int = 7, width: int = 5) -> torch.Tensor:
    return torch.randn(size, width, generator=torch.Generator().manual_seed(seed))


def test_loss_by_hand() -> None:
    s, t = torch.tensor([[1.0, 0.0], [1.0, 1.0]]), torch.tensor([[2.0, 0.0, 0.0], [0.0, 3.0, 0.0]])
    # S S' = [[1, 1], [1, 2]]: rows over sqrt 2 and sqrt 5. T T' = diag(4, 9): rows (1, 0) and (0, 1).
    # An L1 norm would make the first row (1/2, 1/2) and the loss another.
    root2, root5 = 2**0.5, 5**0.5
    square = (1 / root2 - 1) ** 2 + (1 / root2) ** 2 + (1 / root5) ** 2 + (2 / root5 - 1) ** 2
    assert similarity_loss(s, t).item() == pytest.approx(square / 4, rel=1e-5)
    # Nothing in common: orthogonal samples here, one and the same there; each row differs by at most 2.
    opposite = torch.tensor([[1.0, 0.0], [-1.0, 0.0]])
    assert similarity_loss(opposite, torch.ones(2, 3)).item() == pytest.approx(2 * (2 / root2) ** 2 / 4)


@given(seeds)
def test_is_the_mean_square_of_the_normalised_gram_difference(seed: int) -> None:
    s, t = features(seed), features(seed + 1, width=3)
    total = 0.0
    for i in range(7):
        row_s, row_t = s @ s[i], t @ t[i]
        total += (row_s / row_s.square().sum().sqrt() - row_t / row_t.norm()).square().sum().item()
    assert similarity_loss(s, t).item() == pytest.approx(total / 49, rel=1e-4)


@given(seeds, st.floats(0.01, 100))
def test_zero_at_a_perfect_match_also_of_another_scale_turned_and_padded(seed: int, scale: float) -> None:
    t = features(seed)
    assert similarity_loss(t, t).item() == 0.0
    turn = torch.linalg.qr(features(seed + 1, 5)).Q
    assert similarity_loss(F.pad(scale * t @ turn, (0, 2)), t).item() == pytest.approx(0.0, abs=1e-10)
    assert similarity_loss(features(seed + 2), t).item() > 1e-3


@given(seeds)
def test_order_of_the_batch_does_not_matter(seed: int) -> None:
    s, t = features(seed), features(seed + 1, width=3)
    order = torch.randperm(7, generator=torch.Generator().manual_seed(seed))
    torch.testing.assert_close(similarity_loss(s[order], t[order]), similarity_loss(s, t))


def test_gradient_reaches_the_student_alone() -> None:
    s = features(0)
    (gradient,) = check_gradient(similarity_loss, [s], [features(1)])
    # Similarities are directions: scaling a whole batch changes nothing.
    assert (s * gradient).sum().item() == pytest.approx(0.0, abs=1e-7)


@pytest.mark.parametrize("compare", ["features", "maps"])
def test_a_step_is_the_formula(compare: str) -> None:
    method = make_method("spkd", compare=compare, weight=10.0, ce_weight=0.5)
    batch = make_batch(method)
    again = copy.deepcopy(method)
    features, maps = again.student.with_maps(batch.views[0])
    t_features, t_maps = method.teacher.backbone.with_maps(batch.views[0])
    s, t = (features, t_features) if compare == "features" else (maps[-1].flatten(1), t_maps[-1].flatten(1))
    assert s.shape[1] == (64 if compare == "features" else 4 * maps[-1].shape[1])  # 2x2 positions
    g_s, g_t = (x @ x.T / (x @ x.T).norm(dim=1, keepdim=True) for x in (s, t))
    similarity = ((g_s - g_t) ** 2).sum() / 8**2
    labels = F.cross_entropy(again.classifier(features), batch.labels)
    losses = method(batch)
    torch.testing.assert_close(losses.terms["similarity"], similarity)
    torch.testing.assert_close(losses.total, 10 * similarity + 0.5 * labels)


def test_maps_without_labels_leave_what_comes_behind_them() -> None:
    frozen = [n for n, p in make_method("spkd", compare="maps").named_parameters() if not p.requires_grad]
    assert frozen and all(n.startswith(("student.model.conv_head", "student.model.bn2")) for n in frozen)
    for config in ({"compare": "features"}, {"compare": "maps", "ce_weight": 1.0}):
        assert all(p.requires_grad for p in make_method("spkd", **config).parameters())


def test_needs_follow_the_settings() -> None:
    assert dict(Spkd.requires(Spkd.Config())) == {"teacher": ""}
    full = Spkd.requires(Spkd.Config(compare="maps", ce_weight=1))
    assert dict(full) == {"teacher": "", "feature_maps": "compare: maps", "labels": "ce_weight: 1"}
