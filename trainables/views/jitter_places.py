"""A colour jitter does four operations in an order of each sample's own; here they become six, in one order.

Brightness, contrast and saturation are blends of the image with black, with its mean luminance and with its
luminance: one blend does for all three. All 24 orders of them and a hue are contained in

    blend, hue, blend, blend, hue, blend

So all samples of a batch go through these six together. Each is idle in one blend and one hue of them, and
but for the first, a blend that is idle finds the pixels in 0..1.
"""

from __future__ import annotations

import numpy as np

from trainables.views.parameter_table import JITTER_ORDERS, Array

BRIGHTNESS, CONTRAST, SATURATION, HUE = range(4)
IDLE = -1
_FREE = ((1, 2, 3), (0, 1, 2), (0, 1, 3), (0, 1, 2))  # the blends that are taken, by the place of the hue


def _places() -> tuple[Array, Array]:
    blends, hues = np.full((len(JITTER_ORDERS), 4), IDLE), np.zeros((len(JITTER_ORDERS), 2), np.bool_)
    for row, order in enumerate(JITTER_ORDERS):
        place = order.index(HUE)
        blends[row, list(_FREE[place])] = [which for which in order if which != HUE]
        hues[row, place // 2] = True
    return blends, hues


_BLENDS, _HUES = _places()


def blends_of(order: Array, factors: Array) -> tuple[Array, Array]:
    """(B,) orders and (B, 4) factors -> for each blend of each sample which it is, and its factor: (4, B).

    The factor of an idle one is 1.
    """
    which = _BLENDS[order].T
    factor = np.where(which == IDLE, np.float32(1), np.take_along_axis(factors.T, which.clip(0), 0))
    return which, factor


def hues_of(order: Array) -> Array:
    """(B,) orders -> (2, B) whether the first and the second hue are the sample's."""
    turned: Array = _HUES[order].T
    return turned
