"""raykd's recipes of lightly-train's three distillations beside lightly-train itself: speed and score.

    python benchmarks/peer.py                                # all three on the CPU; about ten minutes
    python benchmarks/peer.py --methods global_local --seeds 5 --epochs 30
    python benchmarks/peer.py --device cuda --size 224 --batch 256 --student resnet18

Both sides train the same student from the same teacher, on the same images (scikit-learn's digits as PNG
files; the peer gets those that raykd does not hold out), with the same batch, epochs, views, losses, queue
and AdamW. The teacher is a small vision transformer that raykd trains on the labels first. The peer is handed
it in place of a DINO, by the functions that it asks: features, maps, and maps of the last blocks.

images/s   of the training without its first epoch, with loading and views, without the probe
probe      full ridge and 5-shot ridge of the last epoch's student on the images held out, by raykd's probe
           for both sides; mean over the seeds (least to most)
difference raykd's mean minus the peer's, with the 95 % interval of Welch's t; marked where it excludes 0

A difference beyond the seeds can come from what still differs. The views are drawn by other generators and
resized by other code. The students start from other weights, and the peer's parts of timm's networks may be
other ones: its features are the pooled map. raykd decodes the images once; that time is not in its images/s,
and is printed. On several GPUs the peer's queue and mixtures are those of each GPU; here is one worker.

lightly-train is an extra of this benchmark (`pip install raykd[bench]`). The sides take turns, seed by seed,
so that other load on the machine reaches both.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import logging
import math
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

os.environ.setdefault("LIGHTLY_TRAIN_EVENTS_DISABLED", "1")

import torch
from PIL import Image
from scipy import stats
from sklearn.datasets import load_digits
from step import missing
from torch import Tensor, nn

from trainables.core.isolation import isolated
from trainables.core.workers import on_device
from trainables.data.data_sets import DataSet, open_data
from trainables.evaluation.evaluate import Encode, Examiner
from trainables.networks.backbones import build_backbone
from trainables.spec.trial import TrialSpec
from trainables.teachers.teacher import Teacher, load_teacher
from trainables.training.loop import prepare, train
from trainables.training.resolve import resolve
from trainables.training.taught import channels_last
from trainables.training.teacher_file import teacher_path
from trainables.training.workspace import EpochReport, Workspace

LOADERS = 2  # worker processes of the peer's DataLoader
REFERENCE_BATCH = 1536  # the batch that the peer's learning rates are for; it scales them by the root
PEER = {  # raykd's method -> lightly-train's, and its class
    "queue_pseudo_labels": ("distillationv1", "distillation", "Distillation"),
    "patch_regression": ("distillationv2", "distillationv2", "DistillationV2"),
    "global_local": ("distillationv3", "distillationv3", "DistillationV3"),
}
PROBES = {"probe/ridge": "ridge", "probe/ridge_5shot": "5-shot ridge"}


class Result(NamedTuple):
    """One training of one side."""

    speed: float  # images a second
    scores: dict[str, float]  # percent


class PeerTeacher(nn.Module):
    """raykd's teacher with the functions that lightly-train asks of its own."""

    def __init__(self, teacher: Teacher) -> None:
        super().__init__()
        self.teacher = teacher
        self.embed_dim = teacher.feature_dim

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, D)."""
        return self.teacher.features(images)

    def get_intermediate_layers(self, images: Tensor, n: int, reshape: bool) -> list[Tensor]:
        """The maps (B, D, h, w) of the last `n` blocks."""
        return self.teacher.features_and_last_maps(images, n)[1]

    def feature_dim(self) -> int:
        """D."""
        return self.embed_dim

    def forward_features(self, images: Tensor) -> dict[str, Tensor]:
        """The map (B, D, h, w), and the features."""
        features, (last,) = self.teacher.features_and_last_maps(images)
        return {"features": last, "pooled": features}

    def forward_pool(self, found: dict[str, Tensor]) -> dict[str, Tensor]:
        """The features (B, D, 1, 1)."""
        return {"pooled_features": found["pooled"][:, :, None, None]}


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
                    "train": {"method": "supervised", "preset": "digits", "epochs": asked.teacher_epochs},
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

    def raykd(self, method: str, seed: int) -> Result:
        """A training by raykd."""
        heard: list[EpochReport] = []
        place = Workspace(
            self.folder / f"{method} {seed}", self.place.cache, self.place.teachers, targets="off"
        )

        def hear(said: EpochReport) -> bool:
            heard.append(said)
            return True

        train(self.trial(method, seed), hear, place)
        steps = len(self.data.train_ids) // self.asked.batch
        seconds = heard[-1].metrics["train_s"] - heard[0].metrics["train_s"]
        speed = steps * self.asked.batch * (len(heard) - 1) / seconds
        return Result(speed, {name: heard[-1].metrics[name] for name in PROBES})

    def peer(self, method: str, seed: int) -> Result:
        """A training by lightly-train."""
        import lightly_train

        asked = self.asked
        name, place, kind = PEER[method]
        module: Any = importlib.import_module(f"lightly_train._methods.{place}.{place}")
        starts: list[float] = []
        kept: dict[str, Any] = {}
        its_method = getattr(module, kind)
        step, teacher = its_method.training_step_impl, module.get_teacher

        def timed(self: Any, batch: Any, batch_idx: int) -> Any:
            starts.append(time.perf_counter())
            kept["method"] = self
            return step(self, batch, batch_idx)

        module.get_teacher = lambda *_, **__: PeerTeacher(self.teacher)
        its_method.training_step_impl = timed
        scale = math.sqrt(asked.batch / REFERENCE_BATCH)
        try:
            lightly_train.pretrain(
                out=str(self.folder / "lightly_train"),
                overwrite=True,
                data=str(self.folder / "peer"),
                model=f"timm/{asked.student}",
                method=name,
                method_args={} if method == "patch_regression" else {"queue_size": asked.batch * asked.queue},
                epochs=asked.epochs,
                batch_size=asked.batch,
                num_workers=LOADERS,
                devices=1,
                accelerator="gpu" if self.device.type == "cuda" else "cpu",
                precision="bf16-mixed" if self.device.type == "cuda" else "32-true",
                transform_args={"image_size": (asked.size, asked.size)},
                optim="adamw",
                optim_args={"lr": asked.lr / scale, "weight_decay": asked.weight_decay},
                seed=seed,
            )
        finally:
            its_method.training_step_impl, module.get_teacher = step, teacher
        own = starts[len(starts) // asked.epochs :]
        speed = (len(own) - 1) * asked.batch / (own[-1] - own[0])
        trained = kept["method"].student_embedding_model.wrapped_model.get_model().state_dict()
        student = build_backbone(self.trial(method, seed).student, 0).to(self.device)
        wanted = student.model.state_dict()
        student.model.load_state_dict({key: trained[key] for key in wanted})
        return Result(speed, self.scores(student.eval()))

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
    """Mean difference with the 95 % interval of Welch's t, marked where it excludes 0."""
    if len(ours) < 2:
        return f"{ours[0] - theirs[0]:+.1f}"
    found: Any = stats.ttest_ind(ours, theirs, equal_var=False)
    low, high = found.confidence_interval(0.95)
    if math.isnan(low):  # both sides are constant
        low = high = ours[0] - theirs[0]
    beyond = " **beyond the seeds**" if low > 0 or high < 0 else ""
    return f"{statistics.mean(ours) - statistics.mean(theirs):+.1f} [{low:+.1f}, {high:+.1f}]{beyond}"


def rows(method: str, ours: list[Result], theirs: list[Result]) -> Iterator[str]:
    """The table's rows of a method."""
    sides = (("raykd", ours), (f"lightly-train {PEER[method][0]}", theirs))
    ratio = statistics.median(a.speed / b.speed for a, b in zip(ours, theirs, strict=True))
    for side, results in sides:
        cells = [spread([one.speed for one in results], 0)]
        cells += [spread([one.scores[name] for one in results]) for name in PROBES]
        yield f"| {method} | {side} | " + " | ".join(cells) + " |"
    apart = [difference([a.scores[name] for a in ours], [b.scores[name] for b in theirs]) for name in PROBES]
    yield f"| {method} | raykd / peer, raykd - peer | {ratio:.2f} | " + " | ".join(apart) + " |"


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
    parser.add_argument("--methods", nargs="+", default=list(PEER), choices=list(PEER))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=10, help="at least 2")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--student", default="test_resnet", help="a timm model")
    parser.add_argument("--teacher", default="test_vit", help="a vision transformer of timm")
    parser.add_argument("--teacher-epochs", type=int, default=10)
    parser.add_argument("--size", type=int, default=64, help="pixels of an image")
    parser.add_argument("--patch", type=int, default=8, help="pixels of the teacher's patches")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--queue", type=int, default=8, help="batches in the queue")
    parser.add_argument("--lr", type=float, default=2e-3)
    parser.add_argument("--weight-decay", type=float, default=1e-6)
    parser.add_argument("--images", type=int, default=1797, help="of digits, at most")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="of torch")
    asked = parser.parse_args()
    if asked.epochs < 2:
        parser.error("--epochs: the first epoch warms up, so two are the least")
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
                untrained = bench.scores(
                    build_backbone(bench.trial("queue_pseudo_labels", 0).student, 0).eval()
                )
                taught = bench.scores(bench.teacher.features)
            print(f"| | side | images/s | {' | '.join(PROBES.values())} |")
            print("|---|---|---|---|---|")
            for name, scores in (("the teacher", taught), ("the student, untrained", untrained)):
                print(f"| {name} | | | {' | '.join(f'{score:.1f}' for score in scores.values())} |")
            for method in asked.methods:
                ours, theirs = [], []
                for seed in range(asked.seeds):
                    with quiet(log):
                        ours.append(bench.raykd(method, seed))
                        with isolated(seed):
                            theirs.append(bench.peer(method, seed))
                for row in rows(method, ours, theirs):
                    print(row, flush=True)
        except Exception:
            print("\n".join(log.read_text(errors="replace").splitlines()[-20:]))
            raise
    print(
        f"\n{asked.student} from {asked.teacher}, {len(bench.data.train_ids)} images of {asked.size} px "
        f"(decoded once by raykd in {bench.decoded_s:.1f} s), batch {asked.batch}, {asked.epochs} epochs, "
        f"{asked.seeds} seeds, {asked.device}, {asked.threads} threads, {os.cpu_count()} CPUs, "
        f"torch {torch.__version__}, Python {platform.python_version()}; "
        f"load of the machine {os.getloadavg()[0]:.1f}"
    )


if __name__ == "__main__":
    main()
