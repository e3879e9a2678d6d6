"""raykd's recipes of lightly-train's three distillations beside lightly-train itself: speed and score.

    python benchmarks/peer.py --threads 1                    # all three on the CPU, 5 seeds; about an hour
    python benchmarks/peer.py --methods global_local --seeds 3 --epochs 5
    python benchmarks/peer.py --device cuda --size 224 --batch 256 --student resnet18

Both sides train the same student, from the same initial weights for each seed, from the same teacher, on the
same images (scikit-learn's digits as PNG files; the peer gets those that raykd does not hold out), with the
same batch, epochs, views, losses, queue and AdamW. The teacher is a small vision transformer that raykd
trains on the labels first. The peer is handed it in place of a DINO (`lightly_side.py`).

images/s   of the training from the second to the last but one epoch, with loading and views
CPU ms     of all threads and loaders, an image, in these epochs; other load on the machine hardly changes it
probe      full ridge and 5-shot ridge of the last epoch's student on the images held out, by raykd's probe
           for both sides; mean over the seeds (least to most)
difference raykd's minus the peer's, mean over the seeds with the 95 % interval of Student's t over the pairs
           of one seed; marked where it excludes 0

A difference beyond the seeds can come from what still differs: the views are drawn by other generators and
resized by other code, and so are mixtures and the order of the images. By default the peer's loaders draw
the same random numbers for the views of each epoch; with `--reseeded` they do not. raykd decodes the images
once; that time is not in its images/s, and is printed. On several GPUs the peer's queue and mixtures are
those of each GPU; here is one worker.

lightly-train is an extra of this benchmark (`pip install raykd[bench]`). The sides take turns, seed by seed,
so that other load on the machine reaches both.
"""

from __future__ import annotations

import argparse
import contextlib
import logging
import os
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from lightly_side import METHODS, Moment, Recipe, first_step, now, pretrain
from PIL import Image
from scipy import stats
from sklearn.datasets import load_digits
from step import missing

from trainables.core.isolation import isolated
from trainables.core.workers import on_device
from trainables.data.data_sets import DataSet, open_data
from trainables.evaluation.evaluate import Encode, Examiner
from trainables.methods.base import Batch
from trainables.networks.backbones import Backbone, build_backbone
from trainables.spec.trial import TrialSpec
from trainables.teachers.teacher import load_teacher
from trainables.training.loop import prepare, train
from trainables.training.resolve import resolve
from trainables.training.run import build_method
from trainables.training.taught import channels_last
from trainables.training.teacher_file import teacher_path
from trainables.training.workspace import EpochReport, Workspace
from trainables.views.operations import normalise, to_unit

PROBES = {"probe/ridge": "ridge", "probe/ridge_5shot": "5-shot ridge"}


class Result(NamedTuple):
    """One training of one side."""

    speed: float  # images a second
    cpu: float  # CPU milliseconds an image
    scores: dict[str, float]  # percent


class Bench:
    """What both sides share, and a training of each."""

    def __init__(self, asked: argparse.Namespace, folder: Path) -> None:
        self.asked, self.folder = asked, folder
        self.device = torch.device(asked.device)
        write_digits(folder / "all", asked.size, asked.images)
        start = time.perf_counter()
        trial = self.trial("queue_pseudo_labels", 0)
        self.place = Workspace(folder / "unused", folder / "cache", folder / "teachers", targets="off")
        self.data: DataSet = open_data(trial.data, self.place.cache)
        self.decoded_s = time.perf_counter() - start
        pixels = self.data.train.take(self.data.train_ids).permute(0, 2, 3, 1).numpy()
        (folder / "peer").mkdir()
        for number, image in enumerate(pixels):
            Image.fromarray(image).save(folder / "peer" / f"{number:06d}.png")
        with isolated(0):
            prepare(trial, self.place)
        assert trial.teacher is not None
        self.teacher = load_teacher(trial.teacher, teacher_path(trial, self.place.teachers))
        self.examiner = Examiner(trial.probe, self.data, asked.size, self.device)

    def trial(self, method: str, seed: int) -> TrialSpec:
        """raykd's trial: preset `paper`, with what both sides share."""
        asked = self.asked
        config = {} if method == "patch_regression" else {"queue_size": asked.batch * asked.queue}
        return resolve(
            {
                "method": method,
                "preset": "paper",
                "config": config,
                "student": {"arch": asked.student},
                "teacher": {
                    "arch": asked.teacher,
                    "options": {"img_size": asked.size, "patch_size": asked.patch},
                    "train": {
                        "method": "supervised",
                        "preset": "digits",
                        "epochs": asked.teacher_epochs,
                        "optim": {"lr": 1e-3, "batch_size": 32, "warmup_epochs": asked.teacher_epochs // 10},
                    },
                },
                "data": {
                    "name": "folder",
                    "path": str(self.folder / "all"),
                    "image_size": asked.size,
                    "validation": 0.3,
                },
                "optim": {
                    "optimizer": "adamw",
                    "lr": asked.lr,
                    "weight_decay": asked.weight_decay,
                    "batch_size": asked.batch,
                    "warmup_epochs": asked.epochs // 10,
                },
                "probe": {"score": "ridge", "record": ["ridge_5shot"], "every": asked.epochs},
                "epochs": asked.epochs,
                "seed": seed,
            }
        )

    def first_step(self, method: str) -> tuple[float, float]:
        """How far apart both sides' losses and gradients are in a step from the same weights and views."""
        trial, asked = self.trial(method, 0), self.asked
        ours = build_method(trial, self.data, self.place, self.device).train()
        ours.get_submodule("mixup").eval()
        taken = self.data.train_ids[: asked.batch]
        views = normalise(to_unit(self.data.train.take(taken)))
        batch = Batch([channels_last(views.to(self.device))], *torch.zeros(2, asked.batch, dtype=torch.int64))
        return first_step(method, ours, self.teacher, batch, asked.batch * asked.queue)

    def student(self, seed: int) -> Backbone:
        """The student with the initial weights of a seed."""
        return build_backbone(self.trial("queue_pseudo_labels", seed).student, seed)

    def raykd(self, method: str, seed: int) -> Result:
        """A training by raykd."""
        heard: list[tuple[Moment, dict[str, float]]] = []
        place = Workspace(
            self.folder / f"{method} {seed}", self.place.cache, self.place.teachers, targets="off"
        )

        def hear(said: EpochReport) -> bool:
            heard.append((now(), said.metrics))
            return True

        train(self.trial(method, seed), hear, place)
        steps = len(self.data.train_ids) // self.asked.batch
        found = {name: heard[-1][1][name] for name in PROBES}
        return self.result(heard[0][0], heard[-2][0], steps, found)

    def peer(self, method: str, seed: int) -> Result:
        """A training by lightly-train, from the weights that raykd's starts from."""
        asked = self.asked
        student = self.student(seed)
        recipe = Recipe(
            asked.epochs,
            asked.batch,
            asked.size,
            asked.lr,
            asked.weight_decay,
            asked.batch * asked.queue,
            self.device,
            asked.reseeded,
        )
        images, out = self.folder / "peer", self.folder / "lightly_train"
        begun = pretrain(method, student.model, self.teacher, recipe, images, out, seed)
        steps = len(begun) // asked.epochs
        found = self.scores(student.to(self.device).eval())
        return self.result(begun[steps], begun[-steps], steps, found)

    def result(self, first: Moment, last: Moment, steps: int, scores: dict[str, float]) -> Result:
        """Of a training whose second epoch began at `first`, and its last at `last`; `steps` an epoch."""
        images = steps * self.asked.batch * (self.asked.epochs - 2)
        return Result(images / (last.clock - first.clock), 1000 * (last.cpu - first.cpu) / images, scores)

    def scores(self, encode: Encode) -> dict[str, float]:
        """Both probes of an encoder."""
        with torch.no_grad():
            found = self.examiner.evaluate(lambda images: encode(channels_last(images.to(self.device))))
        return {name: found[name] for name in PROBES}


def write_digits(folder: Path, size: int, count: int) -> None:
    """scikit-learn's digits, at most `count`, as PNG files of `size` pixels in a folder a class."""
    digits: Any = load_digits()
    for number, (image, label) in enumerate(zip(digits.images[:count], digits.target, strict=False)):
        place = folder / str(label)
        place.mkdir(parents=True, exist_ok=True)
        grey = Image.fromarray((image * 255 / 16).astype("uint8")).convert("RGB")
        grey.resize((size, size), Image.Resampling.BICUBIC).save(place / f"{number:04d}.png")


def spread(values: Sequence[float], digits: int = 1) -> str:
    """Mean (least to most)."""
    return f"{statistics.mean(values):.{digits}f} ({min(values):.{digits}f} to {max(values):.{digits}f})"


def difference(ours: Sequence[float], theirs: Sequence[float]) -> str:
    """Mean of the pairs' differences with its 95 % interval by Student's t, marked where it excludes 0."""
    apart = [a - b for a, b in zip(ours, theirs, strict=True)]
    mean = statistics.mean(apart)
    if len(apart) < 2:
        return f"{mean:+.1f}"
    wide = float(stats.t.ppf(0.975, len(apart) - 1)) * statistics.stdev(apart) / len(apart) ** 0.5
    beyond = " **beyond the seeds**" if abs(mean) > wide else ""
    return f"{mean:+.1f} [{mean - wide:+.1f}, {mean + wide:+.1f}]{beyond}"


def rows(method: str, ours: list[Result], theirs: list[Result]) -> Iterator[str]:
    """The table's rows of a method."""
    sides = (("raykd", ours), (f"lightly-train {METHODS[method][0]}", theirs))
    pairs = list(zip(ours, theirs, strict=True))
    for side, results in sides:
        cells = [spread([one.speed for one in results], 0), spread([one.cpu for one in results])]
        cells += [spread([one.scores[name] for one in results]) for name in PROBES]
        yield f"| {method} | {side} | " + " | ".join(cells) + " |"
    cells = [f"{statistics.median(a.speed / b.speed for a, b in pairs):.2f}"]
    cells += [f"{statistics.median(a.cpu / b.cpu for a, b in pairs):.2f}"]
    cells += [difference([a.scores[name] for a in ours], [b.scores[name] for b in theirs]) for name in PROBES]
    yield f"| {method} | raykd / peer, raykd - peer | " + " | ".join(cells) + " |"


@contextlib.contextmanager
def quiet(log: Path) -> Iterator[None]:
    """What libraries print and log goes to a file."""
    logging.disable(logging.WARNING)
    try:
        with log.open("a") as file, contextlib.redirect_stdout(file), contextlib.redirect_stderr(file):
            yield
    finally:
        logging.disable(logging.NOTSET)


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--methods", nargs="+", default=list(METHODS), choices=list(METHODS))
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=10, help="at least 3")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--student", default="test_resnet", help="a timm model")
    parser.add_argument("--teacher", default="test_vit", help="a vision transformer of timm")
    parser.add_argument("--teacher-epochs", type=int, default=40)
    parser.add_argument("--size", type=int, default=64, help="pixels of an image")
    parser.add_argument("--patch", type=int, default=8, help="pixels of the teacher's patches")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--queue", type=int, default=8, help="batches in the queue")
    parser.add_argument("--lr", type=float, default=2e-3)
    parser.add_argument("--weight-decay", type=float, default=1e-6)
    parser.add_argument("--images", type=int, default=1797, help="of digits, at most")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="of torch")
    parser.add_argument("--reseeded", action="store_true", help="repair the peer's repeated random views")
    asked = parser.parse_args()
    if asked.epochs < 3:
        parser.error("--epochs: the first warms up and the last is probed, so three are the least")
    return asked


def main() -> None:
    """Run the command line."""
    asked = arguments()
    if why := missing("lightly_train"):
        raise SystemExit(f"nothing to compare with: lightly_train {why} (`pip install raykd[bench]`)")
    torch.set_num_threads(asked.threads)
    with tempfile.TemporaryDirectory() as place, on_device(torch.device(asked.device)):
        log = Path(place) / "log"
        try:
            with quiet(log):
                bench = Bench(asked, Path(place))
                taught = [bench.scores(bench.teacher.features)]
                apart = {method: bench.first_step(method) for method in asked.methods}
                untrained = [bench.scores(bench.student(seed).eval()) for seed in range(asked.seeds)]
            print(f"| | side | images/s | CPU ms | {' | '.join(PROBES.values())} |")
            print("|---|---|---|---|---|---|")
            for name, scores in (("the teacher", taught), ("the student, untrained", untrained)):
                cells = " | ".join(spread([one[probe] for one in scores]) for probe in PROBES)
                print(f"| | {name} | | | {cells} |", flush=True)
            for method in asked.methods:
                ours, theirs = [], []
                for seed in range(asked.seeds):
                    with quiet(log):
                        ours.append(bench.raykd(method, seed))
                        with isolated(seed):
                            theirs.append(bench.peer(method, seed))
                    print(f"{method}, seed {seed}: {ours[-1]}, {theirs[-1]}", file=sys.stderr, flush=True)
                for row in rows(method, ours, theirs):
                    print(row, flush=True)
        except Exception:
            print("\n".join(log.read_text(errors="replace").splitlines()[-20:]))
            raise
    print("\nOne step of both sides from the same weights on the same views, relative differences:")
    for method, (loss, gradient) in apart.items():
        print(f"{method}: loss {loss:.0e}, the student's gradient {gradient:.0e}")
    print(
        f"\n{asked.student} from {asked.teacher}, {len(bench.data.train_ids)} images of {asked.size} px "
        f"(decoded once by raykd in {bench.decoded_s:.1f} s), batch {asked.batch}, {asked.epochs} epochs, "
        f"{asked.seeds} seeds, {asked.device}, {asked.threads} threads, {os.cpu_count()} CPUs, "
        f"torch {torch.__version__}, Python {platform.python_version()}; "
        f"load of the machine {os.getloadavg()[0]:.1f}"
    )


if __name__ == "__main__":
    main()
