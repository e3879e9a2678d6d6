"""Designs: which arms follow from what varies."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raykd.ablation import designs
from raykd.spec.axis_kinds import same
from trainables.core.errors import UserError

BASE = {"gamma": 0.1, "adapter": "linear", "symmetric": True}
NAMES = ["a", "b", "c", "d", "e"]


def test_one_at_a_time_changes_one_factor_and_leaves_out_the_level_of_the_base() -> None:
    arms = designs.one_at_a_time({"gamma": [0.1, 1.0], "symmetric": [True, False]}, BASE)
    assert list(arms) == ["base", "gamma=1.0", "symmetric=no"]
    assert arms["base"].settings == {}
    assert arms["gamma=1.0"].settings == {"gamma": 1.0}
    assert arms["symmetric=no"].levels == {"gamma": 0.1, "symmetric": False}


def test_the_base_of_a_single_factor_is_called_by_its_level() -> None:
    arms = designs.one_at_a_time({"adapter": ["mlp", "linear", "conv1x1"]}, BASE)
    assert list(arms) == ["adapter=linear", "adapter=mlp", "adapter=conv1x1"]
    assert arms["adapter=linear"].settings == {}


def test_leaving_a_component_out_sets_what_the_user_says() -> None:
    arms = designs.leave_one_out({"mean student": {"mean_student": False}, "head": {"head": "fresh"}})
    assert list(arms) == ["base", "without mean student", "without head"]
    assert arms["without head"].settings == {"head": "fresh"}
    assert arms["without head"].levels == {"mean student": "with", "head": "without"}


def test_compare_takes_method_and_epochs_apart_from_settings() -> None:
    arms = designs.compare({"ours": {}, "seed": {"method": "seed", "epochs": 4, "lr": 0.01}})
    assert arms["ours"].settings == {} and arms["ours"].method is None
    assert (arms["seed"].method, arms["seed"].epochs, arms["seed"].settings) == ("seed", 4, {"lr": 0.01})
    with pytest.raises(UserError, match=r"arms\.x\.epochs"):
        designs.compare({"x": {"epochs": 0}})


@given(st.lists(st.integers(2, 4), min_size=1, max_size=4))
def test_a_grid_holds_every_combination_once_and_its_first_is_the_base(sizes: list[int]) -> None:
    factors = {NAMES[i]: list(range(n)) for i, n in enumerate(sizes)}
    arms = designs.grid(factors)
    rows = designs.design_of(factors, arms)
    assert sorted(map(tuple, rows)) == sorted(itertools.product(*map(range, sizes)))
    assert rows[0] == [0] * len(sizes)
    for arm in arms.values():
        assert arm.settings == arm.levels


def test_a_fraction_of_resolution_three_of_three_factors_is_the_half_with_the_base() -> None:
    factors = {name: ["off", "on"] for name in NAMES[:3]}
    arms = designs.factorial(factors, 3)
    # 2^(3-1): the third is the product of the other two, with the sign that keeps the base: c = a + b mod 2.
    assert sorted(designs.design_of(factors, arms)) == [[0, 0, 0], [0, 1, 1], [1, 0, 1], [1, 1, 0]]
    assert designs.design_of(factors, arms)[0] == [0, 0, 0]
    assert len(designs.factorial(factors, None)) == 8


def test_a_fraction_needs_two_levels() -> None:
    with pytest.raises(UserError, match=r"factors\.b.*two levels"):
        designs.factorial({"a": [1, 2], "b": [1, 2, 3], "c": [1, 2]}, 3)


def test_true_is_no_one() -> None:
    assert same(1, 1.0) and not same(1, True)
    assert designs.label({"a": True, "b": 0.5, "c": None, "d": "mlp"}) == "a=yes, b=0.5, c=null, d=mlp"
