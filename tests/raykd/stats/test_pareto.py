"""The Pareto front, beside its definition."""

from __future__ import annotations

import math

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from raykd.stats.pareto import on_front

VALUES = st.integers(-3, 3) | st.sampled_from([math.inf, -math.inf, math.nan, 0.5])


@settings(max_examples=200, deadline=None)
@given(st.integers(1, 4).flatmap(lambda d: st.lists(st.tuples(*[VALUES] * d), max_size=25)))
def test_it_is_what_the_definition_says(points: list[tuple[float, ...]]) -> None:
    def dominates(one: tuple[float, ...], other: tuple[float, ...]) -> bool:
        pairs = list(zip(one, other, strict=True))
        return all(a >= b for a, b in pairs) and any(a > b for a, b in pairs)

    whole = [p for p in points if not any(map(math.isnan, p))]
    expected = [p in whole and not any(dominates(other, p) for other in whole) for p in points]
    if points:
        assert on_front(points).tolist() == expected


def test_of_no_points_none_is_on_the_front() -> None:
    assert on_front(np.empty((0, 2))).tolist() == []
    assert on_front([(1.0, 2.0)]).tolist() == [True]


def test_equal_points_are_on_it_together() -> None:
    assert on_front([(1, 1), (1, 1), (0, 1), (2, 0)]).tolist() == [True, True, False, True]
