"""Which stages of two networks are compared, at what size, and what is left untrained behind them."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from small_methods import STUDENT, make_method

from trainables.core.errors import UserError
from trainables.methods.parts.stages import (
    Pair,
    at_one_size,
    freeze_unreached,
    pair_stages,
    pairs_with_positions,
    teacher_stages,
)
from trainables.networks.backbones import build_backbone

DEEP = ((8, 8), (12, 4), (64, 2), (24, 1))
stages = st.lists(st.tuples(st.integers(1, 9), st.integers(1, 9)), min_size=1, max_size=4)


def test_stages_are_matched_from_the_deepest_backwards() -> None:
    assert pair_stages(DEEP, ((5, 4), (6, 3))) == (Pair(2, 0, 2), Pair(3, 1, 1))
    assert pair_stages(((5, 4), (6, 3)), DEEP) == (Pair(0, 2, 2), Pair(1, 3, 1))
    assert pair_stages(DEEP, DEEP) == tuple(Pair(i, i, DEEP[i][1]) for i in range(4))


@given(stages, stages)
def test_every_pair_is_as_far_from_the_end_on_both_sides(s: list[tuple[int, int]], t: list) -> None:
    pairs = pair_stages(s, t)
    assert len(pairs) == min(len(s), len(t)) and (pairs[-1].student, pairs[-1].teacher) == (
        len(s) - 1,
        len(t) - 1,
    )
    assert all(len(s) - pair.student == len(t) - pair.teacher for pair in pairs)
    assert all(pair.side == min(s[pair.student][1], t[pair.teacher][1]) for pair in pairs)


def test_maps_of_one_position_are_left_out_and_nothing_but_those_refused() -> None:
    assert pairs_with_positions(DEEP, DEEP, 32) == (Pair(0, 0, 8), Pair(1, 1, 4), Pair(2, 2, 2))
    # One side's single position is enough.
    assert pairs_with_positions(DEEP, ((1, 9), (1, 9), (1, 1), (1, 5)), 32) == (Pair(0, 0, 8), Pair(1, 1, 4))
    with pytest.raises(UserError, match=r"data\.image_size: .*map of 1x1.*got 8\).*larger images"):
        pairs_with_positions(((8, 1), (9, 1)), DEEP, 8)


def test_the_larger_map_is_averaged_down() -> None:
    small, large = torch.randn(2, 3, 2, 2), torch.randn(2, 5, 4, 4)
    averaged = large.view(2, 5, 2, 2, 2, 2).mean((3, 5))
    for one, other in ((small, large), (large, small)):
        for found, given_map in zip(at_one_size(one, other), (one, other), strict=True):
            torch.testing.assert_close(found, small if given_map is small else averaged)


@pytest.mark.parametrize("deepest", [0, 1, 2, 3])
def test_what_no_compared_map_depends_on_asks_for_no_gradient(deepest: int) -> None:
    student = build_backbone(STUDENT, 0)
    before = {name: value.clone() for name, value in student.state_dict().items()}
    freeze_unreached(student, [0, deepest], 48)
    _, maps = student.with_maps(torch.randn(2, 3, 48, 48))
    torch.stack([one.square().mean() for one in (maps[0], maps[deepest])]).sum().backward()
    assert all((p.grad is not None) == p.requires_grad for p in student.parameters())
    # Four stages of blocks, and a widening layer behind the last.
    blocks = {name.split(".")[2] for name, p in student.named_parameters() if "blocks" in name}
    frozen = {n.split(".")[2] for n, p in student.named_parameters() if "blocks" in n and not p.requires_grad}
    stem, head = student.model.conv_stem.weight, student.model.conv_head.weight
    assert stem.requires_grad and not head.requires_grad
    assert len(blocks) - len(frozen) >= deepest + 1 and bool(frozen) == (deepest < 3)
    assert all(torch.equal(value, before[name]) or "running" in name or "num_batches" in name
               for name, value in student.state_dict().items())  # fmt: skip


@pytest.mark.parametrize("name", ["at", "nst", "fitnets"])
def test_without_labels_the_student_is_trained_as_far_as_it_is_compared(name: str) -> None:
    frozen = [n for n, p in make_method(name).named_parameters() if not p.requires_grad]
    assert any(n.startswith("student.model.conv_head") for n in frozen)
    assert all(p.requires_grad for p in make_method(name, ce_weight=1.0).parameters())


def test_the_teachers_stages_are_those_of_its_maps() -> None:
    teacher = make_method("at").teacher
    assert teacher_stages(teacher, 48) == ((8, 12), (12, 6), (64, 3), (24, 2))
