"""How long a trial would take on this machine, from a few of its steps: no data, no trained teacher needed.

    seconds = measure(trial).of(trial)

The steps are real ones (views, forward, backward, optimizer) on images of noise, and so are the probes, on as
many features as they will get: what a step costs does not depend on what the images show.
"""

from __future__ import annotations

import math
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from trainables.check import TrialChecker
from trainables.compute import bare_method, epoch_steps
from trainables.data import DataFacts, DataSet, Images, check_data
from trainables.isolation import isolated
from trainables.loop import Workspace
from trainables.probes import probe
from trainables.run import Run, channels_last, move
from trainables.trial import TrialSpec
from trainables.workers import device

STEPS = 3  # timed, after one that warms up
_SLOW_S = 5.0  # where the first step takes longer, it is the only one
_PIXELS = {"cpu": 2**20, "cuda": 2**26}  # of one view of a micro-batch: a larger one is taken in part
_ENCODED = 256  # images, of those that a probe looks at


class Timing(NamedTuple):
    """Seconds here, on one worker."""

    step_s: float  # of one optimizer step of this worker's share of the batch
    probe_s: float  # of one probing, all images and all probes
    steps: int  # timed
    device: str  # cpu | cuda

    def of(self, trial: TrialSpec) -> float:
        """Seconds of a whole trial that trains and probes at this speed."""
        probed = math.ceil(trial.epochs / trial.probe.every)
        return trial.epochs * epoch_steps(trial) * self.step_s + probed * self.probe_s


class _Noise(Images):
    """Images of the size and number of a data set that nobody has opened."""

    def __init__(self, count: int, size: int, classes: int) -> None:
        self.path, self.size, self.classes, self.fingerprint = Path(), size, classes, "noise"
        self.labels = np.arange(count) % classes if classes else np.full(count, -1)

    def take(self, ids: np.ndarray | torch.Tensor) -> torch.Tensor:
        return torch.randint(0, 256, (len(ids), 3, self.size, self.size), dtype=torch.uint8)


def measure(trial: TrialSpec, workers: int = 1, threads: int = 1) -> Timing:
    """Time `STEPS` steps and one probing of a trial, on the GPU where there is one.

    `threads` are those that a lane's worker has. Of `workers` each gets its share of the batch; what they
    say to each other is not in the figure. A micro-batch that is too large for here is taken in part.
    """
    where = device()
    facts, side = check_data(trial.data), trial.data.image_size
    share = trial.optim.batch_size // workers // trial.optim.accumulate
    images = share
    while images > 2 and images % 2 == 0 and images * side**2 > _PIXELS[where.type]:
        images //= 2
    with isolated(trial.seed), tempfile.TemporaryDirectory() as folder:
        torch.set_num_threads(threads)
        method = bare_method(trial, TrialChecker(workers).context)
        move(method, where)
        place = Workspace(Path(folder) / "trial", Path(folder), Path(folder))
        run = Run(trial, place, _noise(trial, facts), method)
        views, ids = run.views.epoch(1), np.arange(images)
        run.method.train()

        def step() -> float:
            start = time.perf_counter()
            run.optimizer.zero_grad(set_to_none=True)
            run.micro_batch(run.data.train.take(ids).to(where), ids, views, last=True)
            run.optimizer.step()
            with torch.no_grad():
                run.method.after_step(0.0)
            _wait(where)
            return time.perf_counter() - start

        seconds = [step()]
        if seconds[0] < _SLOW_S:
            seconds = [step() for _ in range(STEPS)]
        each = statistics.median(seconds) * share / images * trial.optim.accumulate
        return Timing(each, _probing(run, where), len(seconds), where.type)


def _noise(trial: TrialSpec, facts: DataFacts) -> DataSet:
    """A data set of these facts: its first images trained on, the rest held out."""
    count = facts.train_images + facts.validation_images
    images = _Noise(count, trial.data.image_size + trial.data.margin, facts.classes)
    ids = np.arange(count)
    trained = ids[: facts.train_images]
    probed = trained[: facts.probe_images] if facts.classes else trained[:0]
    return DataSet(images, None, trained, probed, ids[facts.train_images :], facts.classes, "noise")


def _probing(run: Run, where: torch.device) -> float:
    """Seconds of one probing: so many images encoded, each probe on features of that number and width."""
    run.method.eval()
    examiner = run.examiner
    ids = np.concatenate([examiner.fit_ids, examiner.val_ids])
    part = ids[:_ENCODED]

    def encode(images: torch.Tensor) -> torch.Tensor:
        return run.method.features(channels_last(images), run.trial.probe.point)

    def encoded() -> None:
        examiner.encoded(encode, run.data.train, part)

    width = examiner.encoded(encode, run.data.train, part[:2]).shape[1]
    features = [torch.randn(len(n), width, device=where) for n in (examiner.fit_ids, examiner.val_ids)]
    labels = examiner.fit_labels, examiner.val_labels

    def probed() -> None:
        for name in examiner.names:
            probe(name, features[0], labels[0], features[1], labels[1], examiner.spec.draws)

    return _once_warm(encoded, where) * len(ids) / max(1, len(part)) + _once_warm(probed, where)


def _once_warm(work: Callable[[], None], where: torch.device) -> float:
    """Seconds of the second time, or of the first if that is slow."""
    for _ in range(2):
        start = time.perf_counter()
        work()
        _wait(where)
        if (seconds := time.perf_counter() - start) > _SLOW_S:
            break
    return seconds


def _wait(where: torch.device) -> None:
    if where.type == "cuda":
        torch.cuda.synchronize(where)
