"""scikit-learn's digits: 1797 real 8x8 grey images of ten classes. They need no download."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from trainables.core.errors import UserError
from trainables.data.sources.base import Counts, Part, Parts, Sample, Source
from trainables.data.splits import stratified
from trainables.spec.trial import DataSpec

IMAGES = 1797
PER_CLASS = (133, 137, 133, 137, 136, 137, 136, 134, 130, 135)  # of the training part
TEST_SHARE = 1 / 4
TEST_SEED = 1797  # digits have no published test part; this fixed seed draws it


class Digits(Source):
    """The data source `digits`."""

    name = "digits"
    summary = "scikit-learn's digits, 8x8 grey, 10 classes: 1348 train, 449 test; nothing to download"

    def where(self, spec: DataSpec) -> Path | None:
        if spec.path is not None:
            raise UserError(
                "data.path",
                "digits come with scikit-learn and lie nowhere",
                value=str(spec.path),
                expected="no path, or data.name: folder to read your own images",
            )
        return None

    def counts(self, spec: DataSpec) -> Counts:
        self.where(spec)
        train = sum(PER_CLASS)
        return Counts(train, unlabelled=0, test=IMAGES - train, classes=10, per_class=PER_CLASS)

    def open(self, spec: DataSpec) -> Parts:
        from sklearn.datasets import load_digits

        digits = load_digits()
        pixels = np.rint(digits.images * (255 / 16)).astype(np.uint8)  # from 0..16
        labels = digits.target.astype(np.int64)
        test = stratified(labels, TEST_SHARE, TEST_SEED)
        train = np.setdiff1d(np.arange(len(labels)), test)

        def part(ids: np.ndarray) -> Part:
            def samples() -> Iterator[Sample]:
                for i in ids:
                    yield Sample(f"digit {i}", int(labels[i]), Image.fromarray(pixels[i]))

            return Part(len(ids), samples)

        return Parts(part(train), part(test), classes=10)


SOURCES = (Digits(),)
