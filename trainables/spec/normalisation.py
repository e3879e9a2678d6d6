"""The mean and standard deviation by which pixels (0..1) are normalised, by channel.

Views are normalised by ImageNet's values for every data set, and students are trained on them. A teacher may
have been trained with other values: its backbone converts the views (`Backbone.feed`).
"""

from __future__ import annotations

import ast
import math
from typing import Any, NamedTuple

from trainables.core.errors import UserError

Triple = tuple[float, float, float]

_SAME = 1e-4  # files round: 123.675 / 255 is .485
_LONGEST = 200  # characters of an option's text that is read
LEAST_STD = 1 / 255  # of networks that take pixels in 0..255 without scaling


class Normalisation(NamedTuple):
    """(pixel - mean) / std, by channel: red, green, blue."""

    mean: Triple
    std: Triple

    def like(self, other: Normalisation) -> bool:
        """Whether both are equal up to rounding."""
        pairs = zip((*self.mean, *self.std), (*other.mean, *other.std), strict=True)
        return all(math.isclose(a, b, rel_tol=0, abs_tol=_SAME) for a, b in pairs)

    def range(self) -> tuple[float, float]:
        """The least and the largest value that a network gets: -1 and 1 for mean .5 and deviation .5."""
        ends = [[(end - m) / s for m, s in zip(self.mean, self.std, strict=True)] for end in (0, 1)]
        return min(ends[0]), max(ends[1])

    def text(self) -> str:
        """`ImageNet's mean and deviation`, or `mean .5, .5, .5 and deviation .5, .5, .5`."""
        if self.like(IMAGENET):
            return "ImageNet's mean and deviation"
        mean, std = (", ".join(f"{value:.4g}" for value in values) for values in self)
        return f"mean {mean} and deviation {std}"

    @property
    def grey(self) -> tuple[float, float]:
        """(mean, deviation) of one channel: the means over the three, as timm has them."""
        return sum(self.mean) / 3, sum(self.std) / 3


# Weights of red, green and blue in the luminance, ITU-R BT.601: what Pillow's mode `L` is.
LUMINANCE = (0.299, 0.587, 0.114)
IMAGENET = Normalisation((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
CIFAR10 = Normalisation((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616))
CIFAR100 = Normalisation((0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762))


def checked(values: Any, low: float, what: str) -> Triple:
    """The three numbers of a user's setting: three, or one for all channels. Raises `UserError` at "".

    Each must be from `low` to 1, because pixels are in 0..1.
    """
    numbers = [values] if isinstance(values, int | float | str) else values
    expected = f"three numbers (red, green, blue) or one, each {low:.2g} to 1: pixels are in 0..1"
    try:
        given = [float(number) for number in numbers if not isinstance(number, bool)]
    except (TypeError, ValueError):
        given = []
    if len(given) not in (1, 3) or len(given) != len(numbers):
        raise UserError("", f"is no {what} of three channels", value=values, expected=expected)
    # Not `low <= …` alone, which nan would pass by.
    if not all(low - 1e-9 <= number <= 1 for number in given):
        if all(low * 255 <= number <= 255 for number in given) and max(given) > 1:
            expected += f"; divided by 255 these are {', '.join(f'{number / 255:.4g}' for number in given)}"
        raise UserError("", f"cannot be the {what} of pixels", value=values, expected=expected)
    red, green, blue = given * (3 // len(given))
    return red, green, blue


def normalisation_from(mean: Any, std: Any, white: float = 1.0) -> Normalisation | None:
    """What a file says under such names; None where it says nothing, or nothing that is possible.

    `white` is the value of white pixels that the file means, 1 or 255. A mean above 1 means 255.
    """
    try:
        means, deviations = (_listed(given) for given in (mean, std))
        white = 255.0 if max(means) > 1 else white
        return Normalisation(
            checked([value / white for value in means], 0.0, "mean"),
            checked([value / white for value in deviations], LEAST_STD, "deviation"),
        )
    except (UserError, TypeError, ValueError, SyntaxError):
        return None


def _listed(given: Any) -> list[float]:
    """Numbers, also where a training script kept the text of its option: `(0.5, 0.5, 0.5)`."""
    known = ast.literal_eval(given) if isinstance(given, str) and len(given) <= _LONGEST else given
    return [float(known)] if isinstance(known, int | float) else [float(value) for value in known]
