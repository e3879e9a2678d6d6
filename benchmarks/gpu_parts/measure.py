"""Time, operations, memory, kernels and waits of a piece of work on a device."""

from __future__ import annotations

import statistics
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch._C._autograd import DeviceType
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode

from gpu_parts.trials import GPU, SMALL, Size
from trainables.methods.base import Context
from trainables.planning.compute import step_flops
from trainables.spec.trial import TrialSpec
from trainables.teachers.teacher import Teacher

Row = dict[str, Any]
Work = Callable[[], Any]
_TOP = 20
_WAITS = ("cudaStreamSynchronize", "cudaDeviceSynchronize", "cudaEventSynchronize")


@dataclass(frozen=True)
class Place:
    """Where and how large."""

    where: torch.device
    size: Size

    @property
    def cuda(self) -> bool:
        return self.where.type == "cuda"


def place(device: str, rehearse: bool) -> Place:
    """Small sizes for a rehearsal."""
    return Place(torch.device(device), SMALL if rehearse else GPU)


def wait(where: torch.device) -> None:
    """Wait until the device has done what it was given."""
    if where.type == "cuda":
        torch.cuda.synchronize(where)


def seconds(work: Work, where: torch.device, times: int, blocks: int = 3, warm: int = 3) -> float:
    """Seconds of one call: the median over blocks of `times` calls without a wait between them."""
    for _ in range(warm):
        work()
    found = []
    for _ in range(blocks):
        wait(where)
        start = time.perf_counter()
        for _ in range(times):
            work()
        wait(where)
        found.append((time.perf_counter() - start) / times)
    return statistics.median(found)


def peak(at: Place, dtype: torch.dtype = torch.bfloat16) -> float:
    """Operations a second of a large product of random matrices."""
    side = 8192 if at.cuda else 512
    a, b = (torch.randn(side, side, device=at.where).to(dtype) for _ in range(2))
    return 2 * side**3 / seconds(lambda: a @ b, at.where, 10)


def flops(trial: TrialSpec, context: Context) -> float:
    """Operations of a step, as `raykd run --dry-run` counts them."""
    return step_flops(trial, lambda _: context)


def teacher_flops(teacher: Teacher, side: int) -> float:
    """Operations of a teacher's forward pass of one image."""
    where = next(teacher.parameters()).device
    with FlopCounterMode(display=False) as counter:
        teacher.features(torch.randn(2, 3, side, side, device=where))
    operations: int = counter.get_total_flops()
    return operations / 2


def measured(work: Work, at: Place, operations: float, top: float) -> Row:
    """Speed, memory, and the share of the peak `top` (operations a second), of one kind of step."""
    if at.cuda:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(at.where)
    spent = seconds(work, at.where, at.size.steps)
    memory = round(torch.cuda.max_memory_allocated(at.where) / 2**30, 2) if at.cuda else ""
    return {
        "images/s": round(at.size.batch / spent),
        "ms a step": round(1000 * spent, 2),
        "peak memory, GiB": memory,
        "GFLOP an image": round(operations / at.size.batch / 1e9, 2),
        "share of the bfloat16 peak, %": round(100 * operations / spent / top, 1),
    }


@dataclass
class Traced:
    """What one call of a piece of work asked of the device."""

    kernels: int  # on a CPU: operators
    copies: int  # to, from and within the device, and fills
    waits: int  # calls of CUDA's runtime that wait for the device
    busy_s: float  # of kernels; 0 on a CPU
    top: list[Row]  # kernels by name, the most expensive first; on a CPU: operators


def traced(work: Work, at: Place, times: int = 1) -> Traced:
    """By torch's profiler, over `times` calls after a first one."""
    work()
    wait(at.where)
    with profile(activities=[ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if at.cuda else [])]) as found:
        for _ in range(times):
            work()
    events = [event for event in found.events() if not getattr(event, "is_user_annotation", False)]
    on_device = [event for event in events if event.device_type == DeviceType.CUDA]
    kernels = [event for event in on_device if not event.name.startswith(("Memcpy", "Memset"))]
    copies = len(on_device) - len(kernels)
    if not at.cuda:
        kernels = [event for event in events if event.name.startswith("aten::")]
    waits = sum(event.name in _WAITS for event in events)
    by = "self_device_time_total" if at.cuda else "self_cpu_time_total"
    kind = DeviceType.CUDA if at.cuda else DeviceType.CPU
    named = [each for each in found.key_averages() if each.device_type == kind]
    named.sort(key=lambda each: -getattr(each, by))
    spent = sum(getattr(each, by) for each in named)
    top = [
        {
            "name": each.key[:80],
            "calls": each.count // times,
            "ms": round(getattr(each, by) / 1000 / times, 3),
            "share, %": round(100 * getattr(each, by) / spent, 1),
        }
        for each in named[:_TOP]
    ]
    return Traced(
        len(kernels) // times,
        copies // times,
        (waits - 1) // times if at.cuda else 0,  # the last one is the profiler's
        sum(event.device_time_total for event in kernels) / 1e6 / times if at.cuda else 0.0,
        top,
    )


def places_that_wait(work: Work, at: Place) -> Counter[str]:
    """`file:line` of the Python code of each wait for the GPU in one call; nothing on a CPU."""
    found: Counter[str] = Counter()
    if not at.cuda:
        work()
        return found

    def heard(message: Any, *_: Any, **__: Any) -> None:
        if "synchroniz" in str(message):
            own = [f for f in traceback.extract_stack() if "/trainables/" in f.filename]
            at_fault = own[-1] if own else traceback.extract_stack()[-2]
            found[f"{at_fault.filename.rpartition('/trainables/')[2]}:{at_fault.lineno}"] += 1

    work()
    wait(at.where)
    before = torch.cuda.get_sync_debug_mode()
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.showwarning = heard
        torch.cuda.set_sync_debug_mode("warn")
        try:
            work()
        finally:
            torch.cuda.set_sync_debug_mode(before)
    return found
