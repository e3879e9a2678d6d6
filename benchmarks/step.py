"""What a step costs beyond the passes of its networks, and beside the same step made from other libraries.

    python benchmarks/step.py                          # MoCo-v2, SEED and RETRO on the CPU; some minutes
    python benchmarks/step.py --device cuda --size 224 --batch 256
    python benchmarks/step.py --methods seed --rounds 5

Sides, all with the same student, teacher, images on disk, batch, view size and optimizer:

raykd          an epoch of `Run`: loader, views, step, as a trial trains
bare passes    its networks' forward and backward passes and the optimizer's step on a ready tensor: no data,
               no views, no loss, no queue, no average
lightly        MoCo-v2 from its MoCoV2Transform, MoCoProjectionHead, NTXentLoss and update_momentum in a
               DataLoader with two workers, as in its example
lightly-train  its `distillationv1` (one view, a linear head, a queue of the teacher's features), beside SEED;
               it knows only DINO's teachers, so it is handed this ResNet

lightly and lightly-train are extras of this benchmark (`pip install raykd[bench]`). One that is missing is
left out, and said. The sides take turns, so that other load on the machine reaches all of them. A figure is
the median over the rounds (least to most), a ratio the median of the rounds' ratios. Beside other processes
the CPU time of `--threads 1` is a sounder figure than the clock: threads that wait for each other cost both.
On a GPU raykd's `precision: auto` is bfloat16, and so is that of the others.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import psutil
import torch
from PIL import Image
from torch import Tensor, nn

from trainables.core.isolation import isolated
from trainables.core.workers import on_device
from trainables.data.data_sets import open_data
from trainables.networks.backbones import build_backbone
from trainables.planning.check import TrialChecker
from trainables.planning.compute import bare_method
from trainables.spec.trial import ModelSpec, TrialSpec
from trainables.training.optimizer import make_optimizer
from trainables.training.resolve import resolve
from trainables.training.run import Run, move
from trainables.training.taught import autocast, channels_last
from trainables.training.workspace import Workspace

LOADERS = 2  # worker processes of the other libraries' DataLoader
# Passes of a step, in views: of what is trained, of the momentum encoder, of the teacher.
PASSES = {"moco": (1, 1, 0), "seed": (1, 0, 1), "retro": (2, 2, 2)}


class Cost(NamedTuple):
    """Seconds of a step."""

    passed: float  # on the clock
    cpu: float  # of all CPUs, of this process and its loaders


Side = Callable[[], Cost]  # one round


class Bench:
    """The settings that all sides share, and each side."""

    def __init__(self, asked: argparse.Namespace, folder: Path) -> None:
        self.asked, self.folder = asked, folder
        self.device = torch.device(asked.device)
        self.images = folder / "images"
        write_images(self.images, asked.steps * asked.batch * 10 // 9 + 2, asked.size)

    def trial(self, method: str) -> TrialSpec:
        """The trial of a method, with its preset `paper` where that does not depend on the data's size."""
        raw: dict[str, Any] = {
            "method": method,
            "preset": "paper",
            "student": {"arch": self.asked.student},
            "config": {"queue_size": self.asked.batch * (self.asked.steps - 1)},
            "optim": {"batch_size": self.asked.batch, "warmup_epochs": 0},
            "data": {
                "name": "folder",
                "path": str(self.images),
                "image_size": self.asked.size,
                "validation": 0.1,
            },
            "epochs": 200,
        }
        if PASSES[method][2]:
            training = {"method": "moco", "epochs": 1, "config": raw["config"]}
            training["optim"] = {"batch_size": self.asked.batch}
            raw["teacher"] = {"arch": self.asked.teacher, "train": training}
        return resolve(raw)

    def raykd(self, method: str) -> tuple[Side, Run]:
        """Epochs of a trial. A teacher has random weights, which change no time."""
        trial = self.trial(method)
        made = bare_method(trial, TrialChecker().context)
        move(made, self.device)
        place = Workspace(self.folder / method, self.folder / "cache", self.folder / "teachers")
        run = Run(trial, place, open_data(trial.data, place.cache), made)
        epochs = iter(range(1, trial.epochs))
        return lambda: self._timed(lambda: run._train(next(epochs)), self.asked.steps), run

    def bare(self, run: Run) -> Side:
        """The passes of the networks in `run`'s method."""
        method: Any = run.method
        trained, averaged, taught = PASSES[method.name]
        size = self.asked.size
        images = channels_last(torch.randn(self.asked.batch, 3, size, size, device=self.device))
        optimizer = make_optimizer(method, run.trial.optim)

        def query() -> Tensor:
            if method.name == "retro":
                embedding: Tensor = method.teacher.head(method.adapter(method.student, images))
                return embedding
            embedding = method.head(method.student(images))
            return embedding

        def key() -> Tensor:
            if method.name == "retro":
                return method._key_embedding(images)
            return method.mean(images)

        def step() -> None:
            optimizer.zero_grad(set_to_none=True)
            with autocast(run.trial.optim, run.device):
                loss = torch.stack([query().float().square().mean() for _ in range(trained)]).sum()
                with torch.no_grad():
                    for _ in range(averaged):
                        key()
                    for _ in range(taught):
                        method.teacher.embed(images)
            loss.backward()
            optimizer.step()

        def steps() -> None:
            method.train()
            for _ in range(self.asked.steps):
                step()

        return lambda: self._timed(steps, self.asked.steps)

    def lightly(self) -> Side:
        """MoCo-v2 as in lightly's example, with the student's network and optimizer."""
        from lightly.loss import NTXentLoss
        from lightly.models.modules import MoCoProjectionHead
        from lightly.models.utils import deactivate_requires_grad, update_momentum
        from lightly.transforms import MoCoV2Transform
        from torchvision.datasets import ImageFolder

        trial = self.trial("moco")
        student = build_backbone(trial.student, trial.seed)
        width = student.feature_dim
        online = nn.ModuleList([student, MoCoProjectionHead(width, width, 128)]).to(self.device)
        backbone = build_backbone(trial.student, trial.seed)
        average = nn.ModuleList([backbone, MoCoProjectionHead(width, width, 128)]).to(self.device)
        deactivate_requires_grad(average)
        criterion = NTXentLoss(temperature=0.2, memory_bank_size=(trial.config["queue_size"], 128))
        criterion.to(self.device)
        optimizer = make_optimizer(online, trial.optim)
        loader = torch.utils.data.DataLoader(
            ImageFolder(str(self.images), transform=MoCoV2Transform(input_size=self.asked.size)),
            batch_size=self.asked.batch,
            shuffle=True,
            drop_last=True,
            num_workers=LOADERS,
            persistent_workers=True,
            pin_memory=self.device.type == "cuda",
        )

        def epoch() -> None:
            for (query, key), _ in loader:
                query, key = (x.to(self.device, non_blocking=True) for x in (query, key))
                update_momentum(online, average, m=0.999)
                with self._autocast():
                    q = online[1](online[0](query))
                    with torch.no_grad():
                        k = average[1](average[0](key))
                    loss = criterion(q, k)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()

        return lambda: self._timed(epoch, len(loader))

    def lightly_train(self) -> Side:
        """lightly-train's distillation. A round is a training of its own, timed between its steps."""
        import lightly_train
        from lightly_train._methods.distillation import distillation

        batch, size = self.asked.batch, self.asked.size
        starts: list[Cost] = []
        original = distillation.Distillation.training_step_impl

        def timed(self: Any, batch: Any, batch_idx: int) -> Any:
            starts.append(_now())
            return original(self, batch, batch_idx)

        def teacher(*_: Any, **__: Any) -> nn.Module:
            backbone = build_backbone(ModelSpec(arch=self.asked.teacher), 0).eval().requires_grad_(False)
            backbone.embed_dim = backbone.feature_dim  # type: ignore[assignment]
            return backbone

        distillation.Distillation.training_step_impl = timed
        distillation.get_teacher = teacher

        def round_() -> Cost:
            starts.clear()
            lightly_train.pretrain(
                out=str(self.folder / "lightly_train"),
                overwrite=True,
                data=str(self.images),
                model=f"timm/{self.asked.student}",
                method="distillationv1",
                method_args={"queue_size": batch * (self.asked.steps - 1)},
                epochs=2,
                batch_size=batch,
                num_workers=LOADERS,
                devices=1,
                accelerator="gpu" if self.device.type == "cuda" else "cpu",
                precision="bf16-mixed" if self.device.type == "cuda" else "32-true",
                transform_args={"image_size": (size, size)},
                optim="adamw",
            )
            own = starts[len(starts) // 2 :]  # the second epoch, whose loaders are there
            first, last, steps = own[0], own[-1], len(own) - 1
            return Cost((last.passed - first.passed) / steps, (last.cpu - first.cpu) / steps)

        return round_

    def _timed(self, work: Callable[[], Any], steps: int) -> Cost:
        self._wait()
        start = _now()
        work()
        self._wait()
        end = _now()
        return Cost((end.passed - start.passed) / steps, (end.cpu - start.cpu) / steps)

    def _wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def _autocast(self) -> torch.autocast:
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.device.type == "cuda")


def write_images(folder: Path, count: int, size: int) -> None:
    """`count` JPEG files of smooth noise in two classes."""
    drawn = np.random.default_rng(0)
    for number in range(count):
        place = folder / "ab"[number % 2]
        place.mkdir(parents=True, exist_ok=True)
        coarse = Image.fromarray(drawn.integers(0, 256, (8, 8, 3), dtype=np.uint8))
        coarse.resize((size, size), Image.Resampling.BICUBIC).save(place / f"{number:05d}.jpg", quality=90)


def missing(package: str) -> str:
    """Why a package cannot be used; empty where it can."""
    if importlib.util.find_spec(package) is None:
        return "is not installed"
    try:
        importlib.import_module(package)
    except Exception as error:  # one of its own dependencies
        return f"cannot be imported ({type(error).__name__}: {error})"
    return ""


def measure(bench: Bench, method: str, rounds: int) -> Iterator[str]:
    """Rows of the table for one method."""
    ours, run = bench.raykd(method)
    sides: dict[str, Side] = {"raykd": ours, "bare passes": bench.bare(run)}
    for package, of, make in (
        ("lightly", "moco", bench.lightly),
        ("lightly_train", "seed", bench.lightly_train),
    ):
        if method == of:
            why = missing(package)
            if why:
                yield f"| {method} | {package.replace('_', '-')} | left out: it {why} | | | |"
            else:
                sides[package.replace("_", "-")] = make()
    found: dict[str, list[Cost]] = {name: [] for name in sides}
    for turn in range(rounds + 1):
        for name, side in sides.items():
            if name == "lightly-train" and turn == 0:
                continue  # it warms up in each of its rounds
            cost = side()
            if turn:  # the first round warms up
                found[name].append(cost)
    for name, costs in found.items():
        cells = []
        for field in range(2):
            own, ours_ = ([cost[field] for cost in of] for of in (costs, found["raykd"]))
            ratio = statistics.median(a / b for a, b in zip(own, ours_, strict=True))
            cells += [f"{statistics.median(own):.3f} ({min(own):.3f} to {max(own):.3f})", f"{ratio:.2f}"]
        yield f"| {method} | {name} | " + " | ".join(cells) + " |"


def _now() -> Cost:
    """The clock, and the CPU time of this process and its children."""
    cpu = 0.0
    own = psutil.Process()
    for process in (own, *own.children(recursive=True)):
        with contextlib.suppress(psutil.Error):
            times = process.cpu_times()
            cpu += times.user + times.system
    return Cost(time.perf_counter(), cpu)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--methods", nargs="+", default=list(PASSES), choices=list(PASSES))
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--student", default="mobilenetv3_large_100")
    parser.add_argument("--teacher", default="resnet50")
    parser.add_argument("--size", type=int, default=64, help="pixels of a view")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=3, help="for a side and method")
    parser.add_argument("--steps", type=int, default=8, help="of a round")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="of torch")
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    where = torch.device(asked.device)
    with tempfile.TemporaryDirectory() as folder, on_device(where):
        bench = Bench(asked, Path(folder))
        print("| method | side | s a step | times raykd's | CPU s a step | times raykd's |")
        print("|---|---|---|---|---|---|")
        for method in asked.methods:
            with isolated(0):
                for row in measure(bench, method, asked.rounds):
                    print(row, flush=True)
    print(
        f"\n{asked.student}, {asked.teacher}, {asked.size} px, batch {asked.batch}, {asked.device}, "
        f"{asked.threads} threads, {os.cpu_count()} CPUs, torch {torch.__version__}, "
        f"Python {platform.python_version()}; load of the machine {os.getloadavg()[0]:.1f}"
    )


if __name__ == "__main__":
    main()
