"""The time of a trial on this machine, measured on a few of its steps, without data or a trained teacher.

    seconds = measure(trial).of(trial)

The steps are real ones (views, forward, backward, optimizer) on images of noise. The probes run on as many
features as in the trial. The content of images does not change the time.

The figure is that of an idle machine. On the CPU the thread's own time is measured, without the time of other
processes, and the fastest of many short steps counts. Beside two other busy processes on two CPUs a step of
5 ms takes 20 ms, and one with two threads, which wait for each other, 300 ms.
"""

from __future__ import annotations

import math
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from trainables.core.isolation import isolated
from trainables.core.workers import device, on_device
from trainables.data.data_sets import DataFacts, DataSet, check_data
from trainables.data.store_images import Images
from trainables.evaluation.probes import probe
from trainables.planning.check import TrialChecker
from trainables.planning.compute import bare_method, epoch_steps
from trainables.spec.trial import TrialSpec
from trainables.training.run import Run, move
from trainables.training.taught import channels_last
from trainables.training.workspace import Workspace

STEPS = 3  # timed at least, after a first one as warm-up
_SPELL_S = 0.5  # short steps are repeated for so long
_SLOW_S = 5.0  # a first step that takes longer is the only one
_PIXELS = {"cpu": 2**20, "cuda": 2**26}  # of one view of a micro-batch; of a larger one a part is timed
_ENCODED = 256  # images that are encoded to time the encoding


class Timing(NamedTuple):
    """Seconds on one worker of this machine, with nothing else running."""

    step_s: float  # of one optimizer step on this worker's share of the batch
    probe_s: float  # of one evaluation: all images, all probes
    steps: int  # timed
    device: str  # cpu | cuda
    busy: float = 1.0  # the measured time over step_s; above 1 where other processes used the CPUs

    def of(self, trial: TrialSpec) -> float:
        """Seconds of a whole trial that trains and probes at this speed."""
        probed = math.ceil(trial.epochs / trial.probe.every)
        return trial.epochs * epoch_steps(trial) * self.step_s + probed * self.probe_s


class _Noise(Images):
    """Random images, as many and of the size of a data set that is not opened."""

    def __init__(self, count: int, size: int, classes: int) -> None:
        self.path, self.size, self.classes, self.fingerprint = Path(), size, classes, "noise"
        self.labels = np.arange(count) % classes if classes else np.full(count, -1)
        self.aspect = None  # squares

    def take(self, ids: np.ndarray | torch.Tensor) -> torch.Tensor:
        return torch.randint(0, 256, (len(ids), 3, self.size, self.size), dtype=torch.uint8)


def measure(trial: TrialSpec, workers: int = 1, threads: int = 1, kind: str = "") -> Timing:
    """Time `STEPS` or more steps and one evaluation of a trial.

    `kind` is the device (cpu, cuda; default: the GPU where there is one), `threads` the CPU threads of a
    worker. Each of `workers` gets its share of the batch; communication is not in the figure. Of a
    micro-batch that is too large for this machine a part is timed.
    """
    where = torch.device(kind) if kind == "cpu" else device()
    facts, side = check_data(trial.data), trial.data.image_size
    side = max(side, trial.teacher.side(trial.data)) if trial.teacher is not None else side
    share = trial.optim.batch_size // workers // trial.optim.accumulate
    images = share
    while images > 2 and images % 2 == 0 and images * side**2 > _PIXELS[where.type]:
        images //= 2
    with on_device(where), isolated(trial.seed), tempfile.TemporaryDirectory() as folder:
        torch.set_num_threads(threads)
        method = bare_method(trial, TrialChecker(workers).context)
        move(method, where)
        place = Workspace(Path(folder) / "trial", Path(folder), Path(folder))
        run = Run(trial, place, _noise(trial, facts), method)
        views, ids = run.views.epoch(1), np.arange(images)
        run.method.train()

        def step() -> None:
            run.optimizer.zero_grad(set_to_none=True)
            run.micro_batch(run.data.train.take(ids).to(where), ids, views, last=True)
            run.optimizer.step()
            with torch.no_grad():
                run.method.after_step(0.0)

        if run.compiled:
            step()  # compiles
        timed = [_timed(step, where)]
        if timed[0].passed < _SLOW_S:
            timed.clear()
            while len(timed) < STEPS or sum(t.passed for t in timed) < _SPELL_S:
                timed.append(_timed(step, where))
        each = min(t.own for t in timed)
        busy = sum(t.passed for t in timed) / len(timed) / each
        whole = each * share / images * trial.optim.accumulate
        return Timing(whole, _evaluation(run, where), len(timed), where.type, busy)


class _Seconds(NamedTuple):
    own: float  # of computing
    passed: float  # on the clock


def _timed(work: Callable[[], None], where: torch.device) -> _Seconds:
    """Seconds of `work`. For a GPU both are the clock's: the thread only waits for it."""
    start = time.perf_counter(), time.thread_time()
    work()
    if where.type == "cuda":
        torch.cuda.synchronize(where)
    passed, own = time.perf_counter() - start[0], time.thread_time() - start[1]
    return _Seconds(passed if where.type == "cuda" else own, passed)


def _noise(trial: TrialSpec, facts: DataFacts) -> DataSet:
    """A data set of noise with these facts: the first images are trained on, the rest is held out."""
    count = facts.train_images + facts.validation_images
    images = _Noise(count, trial.data.image_size + trial.data.margin, facts.classes)
    ids = np.arange(count)
    trained = ids[: facts.train_images]
    probed = trained[: facts.probe_images] if facts.classes else trained[:0]
    return DataSet(images, None, ids[:0], trained, probed, ids[facts.train_images :], facts.classes, "noise")


def _evaluation(run: Run, where: torch.device) -> float:
    """Seconds of one evaluation: all images encoded, each probe on features of that number and width."""
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
    """Seconds of the faster of two calls, or of the first if that is slow."""
    first = _timed(work, where)
    return first.own if first.passed > _SLOW_S else min(first.own, _timed(work, where).own)
