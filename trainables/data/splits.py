"""The seeded, stratified draw of the labelled images that are held out."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Ids = npt.NDArray[np.int64]


def class_sizes(labels: Ids, classes: int) -> tuple[int, ...]:
    """The number of labels of each class; negative labels are not counted."""
    return tuple(np.bincount(labels[labels >= 0], minlength=classes).tolist())


def held_out(count: int, share: float) -> int:
    """The number of `count` labelled images that a draw of `share` holds out: rounded, never none or all."""
    return min(max(round(count * share), 1), count - 1) if count > 1 else 0


def stratified(labels: Ids, share: float, seed: int) -> Ids:
    """Positions of `held_out(len(labels), share)` of `labels` (none of them negative), sorted.

    Each class gives its share, rounded down. The remaining places go to the classes with the largest
    remainders; a class gives its last image only where no other class can.
    """
    classes, index, sizes = np.unique(labels, return_inverse=True, return_counts=True)
    exact = sizes * share
    give = np.floor(exact).astype(np.int64)
    total = held_out(len(labels), share)
    rng = np.random.default_rng([seed % 2**64, len(labels)])
    order = rng.permutation(len(labels))
    ties = rng.permutation(len(classes))
    while give.sum() < total:
        # First the classes that keep an image, then the largest remainder, then a drawn order.
        last = give + 1 >= sizes
        best = np.lexsort((ties, give - exact, last))
        room = best[give[best] < sizes[best]]
        give[room[0]] += 1
    grouped = order[np.argsort(index[order], kind="stable")]  # a shuffled run of positions a class
    ends = np.cumsum(sizes)
    chosen = [grouped[end - size : end - size + n] for end, size, n in zip(ends, sizes, give, strict=True)]
    return np.sort(np.concatenate(chosen)) if chosen else np.zeros(0, np.int64)


def few_of_each(labels: Ids, count: int, rng: np.random.Generator) -> Ids:
    """Positions of `count` of `labels` of each class (none negative), drawn by `rng`, sorted.

    A class with fewer gives all it has.
    """
    sizes = np.bincount(labels)
    starts = np.cumsum(sizes) - sizes
    order = np.lexsort((rng.random(len(labels)), labels))  # by class, in random order within it
    rank = np.arange(len(labels)) - starts[labels[order]]
    return np.sort(order[rank < count])
