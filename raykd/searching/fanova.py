"""fANOVA (Hutter et al. 2014): the share of a forest's variance that each axis explains by itself.

The numbers are those of Optuna's `FanovaImportanceEvaluator`, up to rounding. Optuna walks through each tree
again for each of its splits, in Python, which takes minutes for thousands of configurations. Here the leaves'
boxes are found level by level, and the marginal of an axis is a sum over leaves.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from raykd.stats.paired import FloatArray

_DEPTH = 64  # Optuna's default


def main_effects(
    places: FloatArray, scores: FloatArray, bounds: FloatArray, trees: int, seed: int
) -> FloatArray:
    """(axes,) the mean over trees of the share of variance that an axis explains by itself, in [0, 1].

    `places` (configurations, axes) are the observations, `scores` (configurations,) their scores, `bounds`
    (axes, 2) the ends of the axes. All NaN if no tree of the forest has any variance.
    """
    from sklearn.ensemble import RandomForestRegressor

    forest = RandomForestRegressor(n_estimators=trees, max_depth=_DEPTH, random_state=seed)
    found = [_of_tree(one.tree_, bounds) for one in forest.fit(places, scores).estimators_]
    known = [shares for shares in found if shares is not None]
    return np.mean(known, axis=0) if known else np.full(len(bounds), np.nan)


def _of_tree(tree: Any, bounds: FloatArray) -> FloatArray | None:
    """(axes,) the shares of a tree's variance; None if it has none."""
    axes = tree.feature
    # The forest computes in single precision, which can put a split a little outside of the axis.
    low, high = bounds[np.maximum(axes, 0)].T  # the axis of a leaf is negative
    splits = np.clip(tree.threshold, low, high)
    boxes, values = _leaves(tree, splits, bounds)
    widths = boxes[:, :, 1] - boxes[:, :, 0]
    weights = widths.prod(axis=1)
    total = _variance(values, weights)
    if total <= 0:
        return None
    shares = np.empty(len(bounds))
    for axis in range(len(bounds)):
        edges = np.unique(np.concatenate([bounds[axis], splits[axes == axis]]))
        first, behind = (np.searchsorted(edges, boxes[:, axis, end]) for end in (0, 1))
        density = np.divide(weights, widths[:, axis], out=np.zeros_like(weights), where=weights > 0)
        # The mean prediction in each cell between two splits, over all values of the other axes.
        of_cell = _spread(density * values, first, behind, len(edges)) / _spread(
            density, first, behind, len(edges)
        )
        shares[axis] = _variance(of_cell, np.diff(edges)) / total
    return shares


def _leaves(tree: Any, splits: FloatArray, bounds: FloatArray) -> tuple[FloatArray, FloatArray]:
    """The leaves' boxes (leaves, axes, 2) and their predictions (leaves,)."""
    boxes = np.empty((tree.node_count, *bounds.shape))
    boxes[0] = bounds
    level = np.array([0])
    while len(level):
        inner = level[tree.children_left[level] >= 0]
        left, right = tree.children_left[inner], tree.children_right[inner]
        boxes[left] = boxes[right] = boxes[inner]
        boxes[left, tree.feature[inner], 1] = boxes[right, tree.feature[inner], 0] = splits[inner]
        level = np.concatenate([left, right])
    leaves = np.flatnonzero(tree.children_left < 0)
    return boxes[leaves], tree.value[leaves].reshape(len(leaves))


def _spread(amounts: FloatArray, first: Any, behind: Any, edges: int) -> FloatArray:
    """(cells,) the sum of the amounts of all leaves that cover a cell: those from `first` up to `behind`."""
    steps = np.zeros(edges)
    np.add.at(steps, first, amounts)
    np.subtract.at(steps, behind, amounts)
    return np.cumsum(steps)[:-1]


def _variance(values: FloatArray, weights: FloatArray) -> float:
    mean = np.average(values, weights=weights)
    return float(np.average((values - mean) ** 2, weights=weights))
