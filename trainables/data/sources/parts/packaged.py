"""A small data set that comes with a Python package: all of it in memory, with a test part drawn once."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from importlib import util
from pathlib import Path

import numpy as np
from PIL import Image

from trainables.core.errors import UserError
from trainables.data.sources.base import Counts, Metric, Part, Parts, Sample, Source
from trainables.data.splits import stratified
from trainables.spec.trial import DataSpec


@dataclass(frozen=True)
class PackagedSet(Source):
    """Grey or colour images of a package. The test part is a stratified draw by a fixed seed."""

    name: str
    about: str  # the images, in words
    package: str  # as pip and users call it
    module: str  # as Python imports it
    per_class: tuple[int, ...]  # images of each class in the training part
    test: int  # images in the test part
    seed: int  # of the draw
    read: Callable[[], tuple[np.ndarray, np.ndarray]]  # (N, H, W) uint8 and labels (N,) int64
    extra: str = ""  # raykd's extra that installs the package; "": it comes with raykd
    metric: Metric = "top1"
    summary: str = field(init=False)

    def __post_init__(self) -> None:
        how = f"pip install raykd[{self.extra}]" if self.extra else "nothing to download"
        images = f"{sum(self.per_class):,} train, {self.test:,} test"
        object.__setattr__(self, "summary", f"{self.about}, {len(self.per_class)} classes: {images}; {how}")

    def where(self, spec: DataSpec) -> Path | None:
        if spec.path is not None:
            raise UserError(
                "data.path",
                f"{self.name} comes with {self.package} and lie nowhere",
                value=str(spec.path),
                expected="no path, or data.name: folder to read your own images",
            )
        return None

    def counts(self, spec: DataSpec) -> Counts:
        self.where(spec)
        found = util.find_spec(self.module)
        if found is None or found.origin is None:  # a folder of that name is found, too, and has no origin
            problem = f"{self.name} comes with {self.package}, which is not installed"
            raise UserError("data.name", problem, expected=f"`pip install raykd[{self.extra}]`")
        return self.published()

    def published(self) -> Counts:
        train = sum(self.per_class)
        return Counts(train, 0, self.test, len(self.per_class), per_class=self.per_class)

    def open(self, spec: DataSpec) -> Parts:
        held = self.counts(spec)
        pixels, labels = self.read()
        test = stratified(labels, held.test / (held.labelled + held.test), self.seed)
        train = np.setdiff1d(np.arange(len(labels)), test)
        found = (*np.bincount(labels[train], minlength=held.classes).tolist(), len(test))
        if found != (*held.per_class, held.test):
            problem = f"{self.package} holds other images of {self.name} than those that were published"
            raise UserError("data.name", problem, expected=f"`pip install --force-reinstall {self.package}`")

        def part(ids: np.ndarray) -> Part:
            def samples() -> Iterator[Sample]:
                for i in ids:
                    yield Sample(f"{self.name} image {i}", int(labels[i]), Image.fromarray(pixels[i]))

            return Part(len(ids), samples)

        return Parts(part(train), part(test), held.classes)
