"""The time of a network's forward pass, measured on this machine.

    measure_latency(ModelSpec(arch="mobilenetv3_small_100"), 224).median_ms

The network has random weights, is in eval mode, in float32, and takes images as PyTorch stores them by
default (NCHW), as a user who opens the exported student passes them. The content of weights and images does
not change the time. Passes are timed one by one, and the quartiles of these times are given: on a machine
that does other work, or that changes its clock, the spread says so.
"""

from __future__ import annotations

import platform
import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import torch

from trainables.core.errors import UserError
from trainables.core.limits import cpus
from trainables.core.workers import device
from trainables.networks.backbones import build_backbone
from trainables.spec.trial import ModelSpec

WARM = 10  # passes before the first that counts; fewer where one is slow
_WARM_S = 0.3  # and at least so long
FEWEST, MOST = 10, 1000  # passes that count
_SPELL_S = 2.0  # between these numbers, as many as fit into so long
_CPUINFO = Path("/proc/cpuinfo")


class Latency(NamedTuple):
    """Milliseconds of one forward pass of a batch."""

    median_ms: float
    low_ms: float  # a quarter of the passes took less
    high_ms: float  # a quarter took more
    passes: int  # timed
    busy: float  # time that passed over time that this thread computed; about 1 where nothing else ran
    device: str  # the name of the CPU or the GPU


def measure_latency(
    spec: ModelSpec, image_size: int, batch: int = 1, threads: int = 1, kind: str = "cpu"
) -> Latency:
    """Time forward passes of `batch` images of `image_size` px. `kind` is cpu, or gpu: this worker's.

    Raises `UserError` at `latency` for a device or threads that are not there. `student_size` says whether
    the network can take the images.
    """
    where = _device(kind, threads)
    backbone = build_backbone(spec, 0).eval().to(where)
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(batch, 3, image_size, image_size, generator=generator).to(where)

    def seconds() -> tuple[float, float]:
        began, own = time.perf_counter(), time.thread_time()
        backbone(images)
        if where.type == "cuda":
            torch.cuda.synchronize(where)
        return time.perf_counter() - began, time.thread_time() - own

    with torch.inference_mode(), _threads(threads):
        began, warm = time.perf_counter(), 0
        while time.perf_counter() - began < _WARM_S or (warm < WARM and warm * _WARM_S < _SPELL_S):
            seconds()
            warm += 1
        began, timed = time.perf_counter(), list[tuple[float, float]]()
        while len(timed) < FEWEST or (len(timed) < MOST and time.perf_counter() - began < _SPELL_S):
            timed.append(seconds())
    passed, own = zip(*timed, strict=True)
    low, median, high = (1e3 * value for value in statistics.quantiles(passed, n=4, method="inclusive"))
    alone = where.type == "cpu" and threads == 1  # of several threads, one cannot say what it waits for
    busy = sum(passed) / max(1e-9, sum(own)) if alone else 1.0
    return Latency(median, low, high, len(timed), busy, name_of(where))


def name_of(where: torch.device) -> str:
    """The name of a GPU, or of this machine's CPU as the kernel tells it."""
    if where.type == "cuda":
        return torch.cuda.get_device_name(where)
    try:
        lines = _CPUINFO.read_text().splitlines()
    except OSError:
        lines = []
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, platform.processor() or platform.machine())


def _device(kind: str, threads: int) -> torch.device:
    has = max(1, int(cpus().value))
    if threads > has:
        raise UserError(
            "latency.threads", f"this machine has {has} CPUs", value=threads, expected=f"at most {has}"
        )
    if kind == "cpu":
        return torch.device("cpu")
    where = device()
    if where.type != "cuda":
        raise UserError(
            "latency.device", "workers have no GPU", value=kind, expected="cpu, or `workers.gpus`"
        )
    return where


@contextmanager
def _threads(count: int) -> Iterator[None]:
    """torch computes with so many threads inside, and takes denormal numbers for 0 as trained weights have
    none: random weights of a deep network can make them, and they take a CPU many times as long.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(False)
        torch.set_num_threads(before)
