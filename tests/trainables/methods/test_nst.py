"""NST: its loss by hand and by its definition, what it is blind to, and which stages a run compares."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from loss_checks import check_gradient
from small_methods import context, make_batch, make_method

from trainables.methods.nst import selectivity_loss

seeds = st.integers(0, 1000)


def maps(seed: int, channels: int = 3, side: int = 3) -> torch.Tensor:
    return torch.randn(4, channels, side, side, generator=torch.Generator().manual_seed(seed))


def discrepancy(s: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
    """The squared MMD by its definition: a double sum over channels for each sample."""

    def mean(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        x, y = (a / a.norm(dim=1, keepdim=True).clamp(min=1e-9) for a in (x.flatten(1), y.flatten(1)))
        return (x @ y.T).square().mean()

    samples = [mean(a, a) + mean(b, b) - 2 * mean(a, b) for a, b in zip(s, t, strict=True)]
    return torch.stack(samples).mean()


def test_loss_by_hand() -> None:
    # Channels (1, 0, 0, 0) and (0, 1, 0, 0) against one of direction (1, 1, 0, 0).
    s = torch.tensor([[[[2.0, 0.0], [0.0, 0.0]], [[0.0, 5.0], [0.0, 0.0]]]])
    t = torch.tensor([[[[3.0, 3.0], [0.0, 0.0]]]])
    # Within s: 1, 0, 0, 1; within t: 1; between: 1/2 each.
    assert selectivity_loss(s, t).item() == pytest.approx(2 / 4 + 1 - 2 / 2, abs=1e-6)
    # Nothing in common: 1 + 1.
    assert selectivity_loss(s[:, :1], s[:, 1:]).item() == pytest.approx(2.0)


@given(seeds, st.sampled_from([(2, 3, 3), (12, 5, 2), (4, 9, 1)]))
def test_is_the_discrepancy_whichever_way_it_is_summed(seed: int, shape: tuple[int, int, int]) -> None:
    channels, others, side = shape  # fewer pairs of channels than of positions, and more
    s, t = maps(seed, channels, side), maps(seed + 1, others, side)
    torch.testing.assert_close(selectivity_loss(s, t), discrepancy(s, t), rtol=1e-4, atol=1e-6)


@given(seeds, st.floats(0.01, 100))
def test_zero_at_a_perfect_match_and_blind_to_order_scale_and_sign(seed: int, scale: float) -> None:
    t = maps(seed)
    assert selectivity_loss(t, t).item() == pytest.approx(0.0, abs=1e-6)
    other = torch.cat([t.flip(1), -t], 1) * scale
    assert selectivity_loss(other, t).item() == pytest.approx(0.0, abs=1e-6)
    assert selectivity_loss(maps(seed + 1), t).item() > 1e-3
    order = torch.randperm(4, generator=torch.Generator().manual_seed(seed))
    s = maps(seed + 2, 6)
    torch.testing.assert_close(selectivity_loss(s[order], t[order]), selectivity_loss(s, t))


def test_gradient_reaches_the_student_alone() -> None:
    check_gradient(selectivity_loss, [maps(0)], [maps(1)])
    silent = torch.zeros(4, 3, 3, 3, requires_grad=True)  # channels that never respond
    selectivity_loss(silent, maps(1)).backward()
    assert torch.isfinite(silent.grad).all()


def test_a_step_is_the_formula() -> None:
    method = make_method("nst", weight=20.0, ce_weight=0.5)
    batch = make_batch(method, size=3)
    again = copy.deepcopy(method)
    features, student = again.student.with_maps(batch.views[0])
    _, teacher = method.teacher.backbone.with_maps(batch.views[0])
    stages = [discrepancy(s, t) for s, t in list(zip(student, teacher, strict=True))[-1:]]
    labels = F.cross_entropy(again.classifier(features), batch.labels)
    losses = method(batch)
    assert list(losses.terms) == ["stage_1", "stage_2", "stage_3", "stage_4", "cross_entropy"]
    torch.testing.assert_close(losses.terms["stage_4"], stages[0], rtol=1e-4, atol=1e-6)
    summed = sum(losses.terms[f"stage_{number}"] for number in (1, 2, 3, 4))
    torch.testing.assert_close(losses.total, 20 * summed + 0.5 * labels)


def test_stages_of_one_position_are_left_out() -> None:
    method = make_method("nst", context(image_size=16))
    batch = make_batch(method)
    losses = method(batch._replace(views=[F.interpolate(batch.views[0], 16)]))
    assert [name for name in losses.terms if name != "cross_entropy"] == ["stage_1", "stage_2"]
    assert selectivity_loss(maps(0, side=1), maps(1, side=1)).item() == pytest.approx(0.0, abs=1e-6)  # why
