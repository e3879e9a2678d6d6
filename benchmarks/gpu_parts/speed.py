"""How fast is it on a GPU, and what holds it? Steps with one thing changed at a time, and where they go."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from typing import Any

import torch

from gpu_parts.measure import (
    Place,
    Row,
    Work,
    flops,
    measured,
    peak,
    places_that_wait,
    seconds,
    teacher_flops,
    traced,
    wait,
)
from gpu_parts.trials import Steps, noise, run_of, teacher_of, trial_of
from trainables.data.loader import fetch, order
from trainables.networks.backbones import Backbone

TAUGHT = ("retro", "seed")  # two views, momentum encoder and queue; one view, the cheapest with a teacher
Within = Callable[[], contextlib.AbstractContextManager[None]]


def speed(at: Place) -> Iterator[Row]:
    """Whole steps, and steps on ready views with one thing changed at a time; nothing is compiled."""
    yield from _speeds(at, TAUGHT, _variants)


def compiled(at: Place) -> Iterator[Row]:
    """The first method again, every network compiled by `torch.compile`."""
    yield from _speeds(at, TAUGHT[:1], _compiled)


def _speeds(
    at: Place,
    names: tuple[str, ...],
    variants: Callable[[Steps, float, float], Iterator[tuple[str, Work, Within, float]]],
) -> Iterator[Row]:
    size, data, top = at.size, noise(at.size), peak(at)
    for name in names:
        for student in size.students:
            teacher = teacher_of(size)
            with run_of(trial_of(name, student, size, "bfloat16"), data, teacher, at.where) as run:
                steps, whole = Steps(run), flops(run.trial, run.method.context)
                taught = size.batch * run.method.views * teacher_flops(teacher, size.side)
                for variant, work, within, operations in variants(steps, whole, whole - taught):
                    row = {"student": student, "method": name, "variant": variant}
                    try:
                        with within():
                            yield {**row, **measured(work, at, operations, top)}
                    except Exception as error:
                        yield {**row, "images/s": f"failed: {type(error).__name__}: {error}"[:200]}


def _variants(steps: Steps, whole: float, student: float) -> Iterator[tuple[str, Work, Within, float]]:
    """(name, one step, what holds while it is measured, its operations); `student` is without the teacher."""
    as_it_is = contextlib.nullcontext
    yield "whole step", steps.whole, as_it_is, whole
    yield "ready views", steps.on_ready_views, as_it_is, whole
    yield "ready views, ready targets", steps.on_ready_views, steps.ready_targets, student
    yield "ready views, cuDNN autotuned", steps.on_ready_views, _autotuned, whole
    yield "ready views, channels first", steps.on_ready_views, lambda: _channels_first(steps), whole


def _compiled(steps: Steps, whole: float, student: float) -> Iterator[tuple[str, Work, Within, float]]:
    as_it_is = contextlib.nullcontext
    start = time.perf_counter()
    for network in _networks(steps):
        network.model.compile(dynamic=False)
    steps.on_ready_views()
    wait(steps.where)
    spent = time.perf_counter() - start
    yield f"ready views, compiled in {spent:.0f} s", steps.on_ready_views, as_it_is, whole
    yield "ready views, ready targets, compiled", steps.on_ready_views, steps.ready_targets, student
    yield "whole step, compiled", steps.whole, as_it_is, whole


def _networks(steps: Steps) -> list[Backbone]:
    """Student, momentum encoder and teacher."""
    method = steps.run.method
    found = [module for module in method.modules() if isinstance(module, Backbone)]
    return [*found, method.teacher.backbone]


@contextlib.contextmanager
def _autotuned() -> Iterator[None]:
    before = torch.backends.cudnn.benchmark
    torch.backends.cudnn.benchmark = True
    try:
        yield
    finally:
        torch.backends.cudnn.benchmark = before


@contextlib.contextmanager
def _channels_first(steps: Steps) -> Iterator[None]:
    """Networks and ready views with channels first in memory. Not undone: it is the last variant."""
    for module in (steps.run.method, steps.run.method.teacher):
        module.to(memory_format=torch.contiguous_format)
    steps.ready = steps.ready._replace(views=[view.contiguous() for view in steps.ready.views])
    yield


def where_it_goes(at: Place) -> Iterator[Row]:
    """A whole step in pieces: time, kernels, copies and waits of each, and how busy the device is."""
    data = noise(at.size)
    for student in at.size.students:
        for name in TAUGHT:
            trial, teacher = trial_of(name, student, at.size, "bfloat16"), teacher_of(at.size)
            with run_of(trial, data, teacher, at.where) as run:
                steps = Steps(run)
                for piece, work in _pieces(steps):
                    found, spent = traced(work, at), seconds(work, at.where, at.size.steps)
                    waits = places_that_wait(work, at)
                    yield {
                        "student": student,
                        "method": name,
                        "piece": piece,
                        "ms": round(1000 * spent, 2),
                        "kernels": found.kernels,
                        "copies": found.copies,
                        "device busy, %": round(100 * found.busy_s / spent) if at.cuda else "",
                        "waits of the runtime": found.waits,
                        "waits by place": ", ".join(f"{line} x{n}" for line, n in waits.most_common(6)),
                    }


def _pieces(steps: Steps) -> Iterator[tuple[str, Work]]:
    run, where = steps.run, steps.where

    def teacher() -> None:
        with torch.autocast(where.type, torch.bfloat16, enabled=steps.half):
            for view in steps.ready.views:
                run.method.teacher.features(view)

    def without_teacher() -> Any:
        with steps.ready_targets():
            return steps.on_ready_views()

    yield "whole step", steps.whole
    yield "views", steps.batch
    yield "teacher", teacher
    yield "the rest, teacher's answers ready", without_teacher
    yield "optimizer", run.optimizer.step
    yield "after_step", lambda: run.method.after_step(0.5)


def top_kernels(at: Place) -> Iterator[Row]:
    """What torch's profiler finds most expensive in a whole step of RETRO with the first student."""
    trial, teacher = trial_of(TAUGHT[0], at.size.students[0], at.size, "bfloat16"), teacher_of(at.size)
    with run_of(trial, noise(at.size), teacher, at.where) as run:
        steps = Steps(run)
        yield from traced(steps.whole, at, times=3).top


def loader(at: Place) -> Iterator[Row]:
    """Steps with images from host memory by the training loop's own loader, against images on the device."""
    trial, teacher = trial_of(TAUGHT[1], at.size.students[0], at.size, "bfloat16"), teacher_of(at.size)
    data = noise(at.size)
    with run_of(trial, data, teacher, at.where) as run:
        steps, count = Steps(run), 6 * at.size.steps
        ids = order(data.train_ids, trial.seed, 1, trial.optim, 0, 1)
        ids = (ids * (count // len(ids) + 1))[:count]

        def epoch(work: Callable[[Any, Any], Any]) -> float:
            wait(at.where)
            start = time.perf_counter()
            with contextlib.closing(fetch(data.train, ids, at.where)) as fetched:
                for images, those in fetched:
                    work(images, those)
            wait(at.where)
            return round(count * at.size.batch / (time.perf_counter() - start))

        def step(images: Any, those: Any) -> None:
            run.optimizer.zero_grad(set_to_none=True)
            run.micro_batch(images, those, steps.views, last=True)
            run.optimizer.step()
            run.method.after_step(0.5)

        epoch(step)  # warm
        yield {"what": "loader alone, images/s", "found": epoch(lambda _images, _those: None)}
        yield {"what": "loader and steps of seed, images/s", "found": epoch(step)}
        spent = seconds(steps.whole, at.where, at.size.steps)
        yield {
            "what": "steps of seed on images of the device, images/s",
            "found": round(at.size.batch / spent),
        }
