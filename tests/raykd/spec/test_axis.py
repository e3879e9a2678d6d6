"""Axes: what may be written, and what Optuna, the grid and TensorBoard get from it."""

from __future__ import annotations

import json
import math
from typing import Any

import optuna
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raykd.spec.axis import Axis
from raykd.spec.axis_kinds import Integer, Log, Pick, Uniform
from raykd.spec.axis_parse import parse_axis
from raykd.spec.document import parse_yaml
from raykd.spec.feasible import workable
from trainables.core.errors import UserError

_ends = st.tuples(st.floats(1e-6, 1e6), st.floats(1e-6, 1e6)).filter(lambda e: e[0] * 1.001 < e[1])
_whole = st.tuples(st.integers(1, 10_000), st.integers(1, 10_000)).filter(lambda e: e[0] < e[1])
axes = st.one_of(
    _ends.map(lambda e: {"log": list(e)}),
    _ends.map(lambda e: {"uniform": [-e[1], e[0]]}),
    _whole.map(lambda e: {"integer": list(e)}),
    _whole.map(lambda e: {"integer": list(e), "log": True}),
    st.tuples(st.integers(-9, 9), st.integers(1, 9), st.integers(1, 9)).map(
        lambda n: {"integer": [n[0], n[0] + n[1] * n[2]], "step": n[1]}
    ),
    st.lists(
        st.none() | st.integers(-3, 3) | st.text(max_size=3) | st.lists(st.integers(), max_size=2),
        min_size=1,
        max_size=5,
        unique_by=repr,
    ),
).map(parse_axis)


@given(axes, st.integers(1, 12))
def test_levels_lie_on_the_axis(axis: Axis, n: int) -> None:
    levels = axis.levels(n)
    assert levels and all(axis.contains(level) for level in levels)
    assert len({json.dumps(level) for level in levels}) == len(levels)
    if isinstance(axis, Pick):
        assert levels == list(axis.pick)
    else:
        assert len(levels) <= n
        if n > 1:
            assert (levels[0], levels[-1]) == axis.domain.values


@given(axes, st.integers(0, 100))
@settings(max_examples=60)
def test_suggestions_lie_on_the_axis_and_are_kept_exactly(axis: Axis, seed: int) -> None:
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=seed))
    trial = study.ask()
    value = axis.suggest(trial, "x")
    assert axis.contains(value)
    assert axis.encode(value) == trial.params["x"]
    assert trial.distributions["x"] == axis.distribution()
    assert type(value) is type(json.loads(json.dumps(value)))


@given(axes)
def test_an_axis_is_read_back_from_what_it_writes(axis: Axis) -> None:
    assert parse_axis(json.loads(json.dumps(axis.model_dump(mode="json")))) == axis


@given(axes)
def test_extremes_show_what_a_field_has_to_take(axis: Axis) -> None:
    extremes = axis.extremes()
    assert all(axis.contains(value) for value in extremes)
    if isinstance(axis, Log | Uniform):
        assert list(axis.ends) == extremes[:2] and axis.ends[0] < extremes[2] < axis.ends[1]


def test_a_real_axis_tries_a_number_that_is_not_whole() -> None:
    assert any(value != int(value) for value in parse_axis({"uniform": [1, 1024]}).extremes())


@given(axes.filter(lambda axis: isinstance(axis, Integer)))
def test_values_inside_are_values_of_the_axis(axis: Integer) -> None:
    assert all(axis.contains(value) for value in axis.inside())
    low, high = axis.integer
    if (high - low) // axis.step < 8:
        assert set(range(low, high + 1, axis.step)) <= {*axis.extremes(), *axis.inside()}


@given(
    low=st.integers(1, 300),
    count=st.integers(2, 2000),
    log=st.booleans(),
    divisor=st.sampled_from([2, 8, 96]),
)
def test_what_is_offered_in_place_of_an_axis_works(low: int, count: int, log: bool, divisor: int) -> None:
    offered = workable(Integer(integer=(low, low + count), log=log), lambda value: value % divisor == 0)
    multiples = [value for value in range(low, low + count + 1) if value % divisor == 0]
    if offered is None:
        assert not multiples or count >= 512  # of a long axis not every value is tried
        return
    axis = parse_axis(parse_yaml(offered, ""))
    values = axis.levels(10_000)
    assert set(values) <= set(multiples)
    if isinstance(axis, Integer) and count < 512:
        assert values == multiples


def test_of_values_that_are_not_evenly_spaced_a_list_is_offered() -> None:
    axis = Integer(integer=(64, 256))
    assert workable(axis, lambda value: 512 % value == 0) == "[64, 128, 256]"
    assert workable(axis, lambda value: False) is None


def test_levels_by_magnitude_and_by_step() -> None:
    assert parse_axis({"log": [0.01, 100]}).levels(3) == pytest.approx([0.01, 1, 100])
    assert parse_axis({"log": [0.01, 1]}).levels(1) == pytest.approx([0.1])
    assert parse_axis({"uniform": [0, 1]}).levels(5) == [0, 0.25, 0.5, 0.75, 1]
    assert parse_axis({"integer": [1, 64], "log": True}).levels(3) == [1, 8, 64]
    assert parse_axis({"integer": [0, 100], "step": 25}).levels(3) == [0, 50, 100]
    assert parse_axis({"integer": [1, 3]}).levels(10) == [1, 2, 3]


def test_contains_tells_truth_from_one() -> None:
    assert not parse_axis([1, 2]).contains(True)
    assert not parse_axis([True, False]).contains(1)
    assert not parse_axis({"uniform": [0, 2]}).contains(True)
    assert not parse_axis({"integer": [0, 4], "step": 2}).contains(3)
    assert not parse_axis({"log": [1, 2]}).contains("1")
    assert not parse_axis({"log": [1, 2]}).contains(math.nan)


def test_levels_that_are_lists_are_text_to_optuna() -> None:
    axis = parse_axis([[30, 60], []])
    assert axis.domain == ("discrete", ("[30, 60]", "[]"))
    trial = optuna.trial.FixedTrial({"x": "[]"})
    assert axis.suggest(trial, "x") == []


def test_conditions_are_lists_of_values() -> None:
    assert parse_axis({"pick": [1], "when": {"kind": "mlp"}}).when == {"kind": ("mlp",)}
    assert parse_axis({"pick": [1], "when": {"kind": ["a", "b"]}}).when == {"kind": ("a", "b")}


def test_descriptions() -> None:
    assert Log(log=(0.003, 3)).describe() == "log [0.003, 3]"
    assert Integer(integer=(1, 9), step=2).describe() == "integer [1, 9] step 2"
    assert Pick(pick=("linear", None, 2)).describe() == "pick linear, null, 2"


@pytest.mark.parametrize(
    ("raw", "path", "words"),
    [
        ({"log": [2, 1]}, "log", "an empty range"),
        ({"log": [1, 1]}, "log", "an empty range"),
        ({"log": [0, 1]}, "log", "low > 0"),
        ({"log": [-1, 1]}, "log", "low > 0"),
        ({"log": [1]}, "log", "two numbers"),
        ({"log": ["a", 1]}, "log", "two numbers"),
        ({"log": [True, 2]}, "log", "two numbers"),
        ({"log": 3}, "log", "two numbers"),
        ({"log": None}, "log", "two numbers"),
        ({"uniform": [0, math.inf]}, "uniform", "two numbers"),
        ({"uniform": [math.nan, 1]}, "uniform", "two numbers"),
        ({"uniform": {"a": 1}}, "uniform", "two numbers"),
        ({"integer": [1.5, 3]}, "integer", "two whole numbers"),
        ({"integer": [1, 6], "step": 2}, "integer", "[1, 5]"),
        ({"integer": [1, 5], "step": 0}, "step", "greater than or equal to 1"),
        ({"integer": [1, 5], "step": True}, "step", "not yes or no"),
        ({"integer": [0, 5], "log": True}, "integer", "low >= 1"),
        ({"integer": [1, 5], "log": True, "step": 2}, "step", "does not go with log"),
        ({"integer": [1, 5], "log": [1, 2]}, "log", "true or false"),
        ([], "pick", "no value"),
        ({"pick": "a"}, "pick", "Expected a list"),
        ([1, 1], "pick.1", "twice"),
        ([1, True], "pick.1", "twice"),
        ([1, 1.0], "pick.1", "twice"),
        ([[1], [1]], "pick.1", "twice"),
        (["a", math.nan], "pick.1", "a finite value"),
        ({"pikc": [1]}, "pikc", "Did you mean 'pick'?"),
        ({"log": [1, 2], "wen": 3}, "wen", "Did you mean 'when'?"),
        ({"log": [1, 2], "when": {"a": []}}, "when.a", "no value"),
        ({"log": [1, 2], "when": 3}, "when", "is not a mapping"),
        ({"log": [1, 2], "uniform": [1, 2]}, "", "both log and uniform"),
        ({"step": 2}, "", "says no range"),
        ({}, "", "says no range"),
        (3, "", "under `fixed`"),
        ("log", "", "is not an axis"),
        (None, "", "is not an axis"),
    ],
)
def test_what_is_no_axis(raw: Any, path: str, words: str) -> None:
    with pytest.raises(UserError) as caught:
        parse_axis(raw)
    assert caught.value.field == path
    assert words in str(caught.value)
