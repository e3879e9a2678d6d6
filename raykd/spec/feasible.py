"""Which part of an axis of whole numbers can be trained, in the words of a search space."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise

from raykd.spec.axis_kinds import Integer

_MOST_TRIED = 512  # values of an axis; of a longer one the multiples of a power of two
_LONGEST_LIST = 8  # values that a message names


def workable(axis: Integer, works: Callable[[int], bool]) -> str | None:
    """What to write in place of `axis` so that each value can be trained; None where nothing was found.

    `works` says of one value whether a trial with it can be trained. A whole axis of steps where the values
    that work are evenly spaced, else a list of them.
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
    low, high = axis.integer
    stride = axis.step
    while (high - low) // stride >= _MOST_TRIED:
        stride *= 2
    start = low if stride == axis.step else -(-low // stride) * stride
    return [value for value in range(start, high + 1, stride) if (value - low) % axis.step == 0]


def _spread(values: Sequence[int], by_magnitude: bool) -> list[int]:
    """At most `_LONGEST_LIST` of these, spread as the axis spreads its own, the first and last included."""
    if len(values) <= _LONGEST_LIST:
        return list(values)
    wanted = Integer(integer=(values[0], values[-1]), log=by_magnitude).levels(_LONGEST_LIST)
    return sorted({min(values, key=lambda value: abs(value - place)) for place in wanted})
