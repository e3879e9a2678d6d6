"""The Pareto front: which points no other point beats in every coordinate."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray


def on_front(points: ArrayLike) -> NDArray[np.bool_]:
    """(n, d) points, more is better in each coordinate -> (n,) whether a point is on the front.

    A point is dominated by one that is at least as good in all coordinates and better in one. Equal points do
    not dominate each other. A point with a NaN is not on the front and dominates none.
    """
    values = np.atleast_2d(np.asarray(points, dtype=np.float64))
    found = np.zeros(len(values), dtype=bool)
    finite = np.flatnonzero(~np.isnan(values).any(axis=1)) if values.size else np.zeros(0, dtype=np.int64)
    # Who dominates a point comes before it in this order: best first by the first coordinate, then the next.
    order = finite[np.lexsort(-values[finite].T[::-1])] if len(finite) else finite
    front = np.empty((0, values.shape[1]))
    for at in order:
        point = values[at]
        dominated = ((front >= point).all(axis=1) & (front > point).any(axis=1)).any()
        if not dominated:
            found[at] = True
            front = np.vstack([front, point])
    return found
