"""What `gpu.py` measures: trials on images of noise, on any device, whose steps it takes one by one."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from trainables.core.workers import on_device
from trainables.data.data_sets import DataSet
from trainables.data.encode import TrainingImages
from trainables.data.store_images import Images
from trainables.methods import load_method
from trainables.methods.base import TAUGHT, Batch
from trainables.networks.backbones import build_backbone
from trainables.networks.heads import projection_head
from trainables.spec.trial import ModelSpec, TrialSpec
from trainables.teachers.teacher import Teacher
from trainables.training.resolve import resolve
from trainables.training.run import Run, check_with_data, move
from trainables.training.taught import channels_last
from trainables.training.workspace import Workspace

CLASSES = 10
KEPT = 500  # different images of noise; larger data sets repeat them


@dataclass(frozen=True)
class Size:
    """How large everything is: once for a GPU, once for a rehearsal."""

    students: tuple[str, ...]
    teacher: str
    side: int  # of a view, pixels
    margin: int  # of a stored image beyond a view
    batch: int
    images: int  # of the data set
    queue: int
    head: int  # width of the teacher's head
    steps: int  # timed in a block


GPU = Size(("mobilenetv3_large_100", "efficientnet_b0"), "resnet50", 224, 32, 256, 131072, 65536, 2048, 5)
SMALL = Size(("test_efficientnet", "test_resnet"), "test_resnet", 32, 4, 16, 2048, 64, 32, 2)


class Noise(Images):
    """Images in memory, as many and as large as asked for: a pattern of each class, and as much noise."""

    def __init__(self, count: int, size: int) -> None:
        self.path, self.size, self.classes, self.fingerprint = Path(), size, CLASSES, "noise"
        self.labels, self.aspect = np.arange(count) % CLASSES, None
        generator = np.random.default_rng(0)
        noise = generator.integers(0, 128, (min(count, KEPT), 3, size, size), dtype=np.uint8)
        patterns = generator.integers(0, 128, (CLASSES, 3, size, size), dtype=np.uint8)
        self._pixels = noise + patterns[self.labels[: len(noise)]]

    def take(self, ids: np.ndarray | Tensor) -> Tensor:
        return torch.from_numpy(self._pixels[np.asarray(ids) % len(self._pixels)])


def noise(size: Size) -> DataSet:
    """A labelled data set of noise; a tenth is held out."""
    ids = np.arange(size.images)
    trained, held = ids[: -size.images // 10], ids[-size.images // 10 :]
    return DataSet(
        Noise(size.images, size.side + size.margin), None, ids[:0], trained, trained, held, CLASSES, "noise"
    )


def trial_of(method: str, student: str, size: Size, precision: str, recipe: str = "moco_v2") -> TrialSpec:
    """A trial of a method with its default settings, but for a queue that fits `size`."""
    kind = load_method(method)
    raw: dict[str, Any] = {
        "method": method,
        "student": {"arch": student},
        "data": {"image_size": size.side, "margin": size.margin},
        "views": {"recipe": recipe},
        "optim": {"optimizer": "momentum", "lr": 0.01, "batch_size": size.batch, "precision": precision},
        "epochs": 1,
    }
    if "queue_size" in kind.Config.model_fields:
        raw["config"] = {"queue_size": size.queue}
    if kind.needs & TAUGHT:
        train = {"method": "moco", "epochs": 1, "config": {"queue_size": size.queue}}
        raw["teacher"] = {"arch": size.teacher, "train": train}
    return resolve(raw)


def teacher_of(size: Size, seed: int = 1) -> Teacher:
    """An untrained teacher with a projection head and a classifier."""
    backbone = build_backbone(ModelSpec(arch=size.teacher), seed, "teacher")
    width = backbone.feature_dim
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        head, classifier = projection_head(width, size.head, 128), nn.Linear(width, CLASSES)
    return Teacher(backbone, head, classifier=classifier)


@contextlib.contextmanager
def run_of(trial: TrialSpec, data: DataSet, teacher: Teacher | None, where: torch.device) -> Iterator[Run]:
    """The trial in training on a device, as `trainables.training.loop` has it, but on the data given."""
    with on_device(where), tempfile.TemporaryDirectory() as folder:
        kind, config, context = check_with_data(trial, data)
        student = build_backbone(trial.student, trial.seed)
        method = kind(config, student, teacher if kind.needs & TAUGHT else None, context)
        move(method, where)
        method.begin(TrainingImages(data, trial.data.image_size, where))
        run = Run(trial, Workspace(Path(folder), Path(folder), Path(folder)), data, method)
        run.method.train()
        yield run


class Steps:
    """The steps of a run: whole ones from stored images, or on views that are ready."""

    def __init__(self, run: Run) -> None:
        self.run, self.where = run, run.device
        batch = run.trial.optim.batch_size
        self.ids = run.data.train_ids[:batch]
        self.images = run.data.train.take(self.ids).to(self.where)
        self.views = run.views.epoch(1)
        self.half = run.trial.optim.precision == "bfloat16"
        self.ready = self.batch()

    def batch(self) -> Batch:
        """The views of the images, made now."""
        made = [
            channels_last(self.views.apply(self.images, self.ids, v)) for v in range(self.run.method.views)
        ]
        labels = self.run.labels[self.ids].to(self.where)
        return Batch(made, labels, torch.from_numpy(self.ids).to(self.where))

    def whole(self) -> Tensor:
        """A step of the training loop on images that are on the device; its loss."""
        self.run.optimizer.zero_grad(set_to_none=True)
        losses = self.run.micro_batch(self.images, self.ids, self.views, last=True)
        self._update()
        return losses.total

    def on_ready_views(self) -> Tensor:
        """The same without making views."""
        self.run.optimizer.zero_grad(set_to_none=True)
        with torch.autocast(self.where.type, torch.bfloat16, enabled=self.half):
            total: Tensor = self.run.method(self.ready).total
        total.backward()
        self._update()
        return total.detach()

    def _update(self) -> None:
        self.run.optimizer.step()
        with torch.no_grad():
            self.run.method.after_step(0.5)

    @contextlib.contextmanager
    def ready_targets(self) -> Iterator[None]:
        """Inside, the teacher answers with outputs that it gave before, whatever it is asked."""
        teacher, known = self.run.method.teacher, {}

        def remembering(name: str) -> Callable[[Tensor], Any]:
            ask = getattr(teacher, name)

            def answer(images: Tensor) -> Any:
                key = name, images.shape
                if key not in known:
                    known[key] = ask(images)
                return known[key]

            return answer

        names = ("features", "features_and_maps", "embed", "logits")
        for name in names:
            setattr(teacher, name, remembering(name))
        try:
            yield
        finally:
            for name in names:
                delattr(teacher, name)
