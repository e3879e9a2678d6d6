"""The values of an axis of whole numbers that can be trained, in the syntax of a search space."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise

from raykd.spec.axis_kinds import Integer

_MOST_TRIED = 512  # values of an axis; of a longer axis the multiples of a power of two are tried
_LONGEST_LIST = 8  # values that a message names


def workable(axis: Integer, works: Callable[[int], bool]) -> str | None:
    """What to write in place of `axis` so that each value can be trained; None where no value was found.

    `works` says whether a trial with this value can be trained. The result is an axis with a step where the
    values are evenly spaced, else a list of values.
    """
    values = [value for value in _candidates(axis) if works(value)]
    if not values:
        return None
    gaps = {after - before for before, after in pairwise(values)}
    ends = f"integer: [{values[0]}, {values[-1]}]"
    if gaps == {1}:  # every value between them
        return f"{{{ends}, log: true}}" if axis.log else f"{{{ends}}}"
    if len(gaps) == 1 and len(values) > 2 and not axis.log:
        return f"{{{ends}, step: {gaps.pop()}}}"
    return str(_spread(values, axis.log))


def _candidates(axis: Integer) -> Sequence[int]:
    """The values of the axis that are tried."""
    low, high = axis.integer
    stride = axis.step
    while (high - low) // stride >= _MOST_TRIED:
        stride *= 2
    start = low if stride == axis.step else -(-low // stride) * stride
    return [value for value in range(start, high + 1, stride) if (value - low) % axis.step == 0]


def _spread(values: Sequence[int], by_magnitude: bool) -> list[int]:
    """At most `_LONGEST_LIST` of the values, with both ends, spaced as the axis spaces its own."""
    if len(values) <= _LONGEST_LIST:
        return list(values)
    wanted = Integer(integer=(values[0], values[-1]), log=by_magnitude).levels(_LONGEST_LIST)
    return sorted({min(values, key=lambda value: abs(value - place)) for place in wanted})
