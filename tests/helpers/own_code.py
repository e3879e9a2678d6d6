"""A user's own package: a method, a probe, a data source and a network, in a folder beside a spec."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import yaml

from trainables.core import plugins
from trainables.methods import base, methods
from trainables.networks import backbones

METHOD = '''"""The cosine between features, by a linear layer.

L = weight (1 - cos(W f(x), f_T(x)))
one view
raykd run space.yaml
"""

from typing import ClassVar

from pydantic import Field
from torch import nn

from trainables.methods.base import Batch, Losses, Method, MethodConfig
from trainables.methods.parts.recipes import on_digits


class Config(MethodConfig):
    weight: float = Field(1.0, gt=0, description="of the distance")


class OwnCosine(Method[Config]):
    name = "own_cosine"
    summary = "the teacher's direction of features"
    needs = frozenset({"teacher"})
    views = 1
    presets: ClassVar = {"paper": on_digits(), "digits": on_digits()}

    def build(self) -> None:
        self.layer = nn.Linear(self.student.feature_dim, self.teacher.feature_dim)

    def forward(self, batch: Batch) -> Losses:
        ours = self.layer(self.student(batch.views[0])).float()
        loss = 1 - nn.functional.cosine_similarity(ours, self.taught(batch, "features").float()).mean()
        return Losses(self.config.weight * loss, {"distance": loss})
'''
PROBE = '''"""The nearest class mean."""

from trainables.evaluation.probes.base import Features, Probe, ProbeResult


class OwnProbe(Probe):
    label = "own_centroid"
    summary = "nearest class mean, percent"

    def score(self, features: Features, draws: int, seed: int) -> ProbeResult:
        import torch

        known, targets = torch.unique(features.train_labels, return_inverse=True)
        means = torch.stack([features.train[targets == c].mean(0) for c in range(len(known))])
        right = known[torch.cdist(features.val, means).argmin(1)] == features.val_labels
        return ProbeResult(100 * float(right.float().mean()))
'''
SOURCE = '''"""Stripes, drawn."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from trainables.data.sources.base import Counts, Part, Parts, Sample, Source
from trainables.spec.trial import DataSpec

TRAIN, TEST, CLASSES = 1200, 100, 4


class Stripes(Source):
    name, native, extent = "own_stripes", 16, 14

    def where(self, spec: DataSpec) -> Path | None:
        return None

    def counts(self, spec: DataSpec) -> Counts:
        return Counts(TRAIN, 0, TEST, classes=CLASSES)

    def open(self, spec: DataSpec) -> Parts:
        return Parts(Part(TRAIN, lambda: _draw(0, TRAIN)), Part(TEST, lambda: _draw(TRAIN, TEST)), CLASSES)


def _draw(first: int, count: int) -> Iterator[Sample]:
    for index in range(first, first + count):
        label = index % CLASSES
        x = np.arange(16)[None, :].repeat(16, 0)
        grey = 127 + 90 * np.sin(x * (label + 1) + index)
        pixels = np.repeat(grey[..., None], 3, 2).astype(np.uint8)
        yield Sample(f"{index}", label, Image.fromarray(pixels))


SOURCES = (Stripes(),)
'''
NETWORK = '''"""Small convolutions."""

from torch import nn


def make_net(width=16):
    return nn.Sequential(
        nn.Conv2d(3, width, 3, stride=2),
        nn.BatchNorm2d(width),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
    )


def make_maps(width=16):
    return nn.Conv2d(3, width, 3)


def make_none():
    return None


def fail():
    raise RuntimeError("no weights here")


constant = 3
'''
ALL = """\"\"\"A lab's own code.\"\"\"

from own_lab import losses
from own_lab.probes import OwnProbe
from own_lab.sources import SOURCES
"""
SPEC = {
    "name": "own",
    "plugins": ["own_lab"],
    "method": "own_cosine",
    "preset": "digits",
    "student": {"arch": "own_lab.networks:make_net", "options": {"width": 24}},
    "teacher": {"arch": "test_resnet", "train": {"method": "moco", "preset": "digits", "epochs": 1}},
    "data": {"name": "own_stripes", "image_size": 16},
    "probe": {"score": "own_centroid", "record": ["knn"]},
    "epochs": 2,
    "samples": 2,
    "lanes": 1,
    "references": [],
    "scheduler": {"name": "none"},
    "axes": {"weight": {"log": [0.1, 3]}},
}


def write_package(folder: Path) -> Path:
    """The package `own_lab` in this folder."""
    package = folder / "own_lab"
    package.mkdir(parents=True)
    files = {"__init__": ALL, "losses": METHOD, "probes": PROBE, "sources": SOURCE, "networks": NETWORK}
    for name, text in files.items():
        (package / f"{name}.py").write_text(text)
    return package


def write_spec(folder: Path, **changed: object) -> Path:
    """The spec of a sweep that takes method, probe, data and student from `own_lab`."""
    path = folder / "space.yaml"
    path.write_text(yaml.safe_dump({**SPEC, **changed}))
    return path


@contextmanager
def forgotten() -> Iterator[None]:
    """What is imported as a plug-in inside is not there afterwards; nothing of before is there inside."""
    methods()
    before = dict(base.registry), list(sys.path), set(sys.modules)
    state = [dict(plugins._code), dict(plugins._declared), list(plugins._folders)]
    for kept in (plugins._code, plugins._declared, plugins._folders):
        kept.clear()
    try:
        yield
    finally:
        base.registry.clear()
        base.registry.update(before[0])
        sys.path[:] = before[1]
        for name in set(sys.modules) - before[2]:
            file = getattr(sys.modules[name], "__file__", None) or ""
            if Path(file).is_relative_to(tempfile.gettempdir()):
                del sys.modules[name]
        if plugins._code:
            sys.path_importer_cache.clear()
            for kept in (backbones.backbone_facts, backbones._check_options):
                kept.cache_clear()
            backbones._known_shapes.clear()
        plugins._code.clear()
        plugins._code.update(state[0])
        plugins._declared.clear()
        plugins._declared.update(state[1])
        plugins._folders[:] = state[2]
