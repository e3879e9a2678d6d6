"""scikit-learn's digits: 1797 real 8x8 grey images of ten classes. They need no download."""

from __future__ import annotations

import numpy as np

from trainables.data.sources.parts.packaged import PackagedSet

PER_CLASS = (133, 137, 133, 137, 136, 137, 136, 134, 130, 135)  # of the training part


def _read() -> tuple[np.ndarray, np.ndarray]:
    from sklearn.datasets import load_digits

    digits = load_digits()
    return np.rint(digits.images * (255 / 16)).astype(np.uint8), digits.target.astype(np.int64)  # from 0..16


SOURCES = (
    PackagedSet(
        name="digits",
        about="scikit-learn's digits, 8x8 grey",
        package="scikit-learn",
        module="sklearn",
        per_class=PER_CLASS,
        test=449,
        seed=1797,
        read=_read,
    ),
)
