"""Real trials small enough for tests: digits, the `test_*` networks, seconds."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import torch

from trainables.spec.trial import TrialSpec
from trainables.teachers.teacher import Teacher
from trainables.training.checkpoints import Checkpoints
from trainables.training.loop import prepare, train
from trainables.training.resolve import resolve
from trainables.training.workspace import EpochReport, Workspace

TIMING = ("images_per_s", "train_s")


def tiny(method: str = "moco", **sections: Any) -> TrialSpec:
    """A trial of 3 epochs of 7 steps. Keyword arguments are sections as a user writes them."""
    raw: dict[str, Any] = {
        "method": method,
        "preset": "digits",
        "student": {"arch": "test_efficientnet", "options": {"channel_multiplier": 0.5}},
        "epochs": 3,
        **sections,
    }
    if method == "retro":
        train = {"method": "moco", "preset": "digits", "epochs": 1}
        raw.setdefault("teacher", {"arch": "test_resnet", "train": train})
    return resolve(raw)


def workspace(root: Path, name: str = "trial") -> Workspace:
    return Workspace(root / name, root / "cache", root / "teachers")


class Log:
    """A report that keeps what it hears, and stops or crashes after an epoch if told so."""

    def __init__(self, stop: int = 0, crash: int = 0, look: Callable[[], None] | None = None) -> None:
        self.reports: list[EpochReport] = []
        self.stop, self.crash, self.look = stop, crash, look

    def __call__(self, report: EpochReport) -> bool:
        if self.look is not None:
            self.look()
        if report.epoch == self.crash:
            self.crash = 0
            raise KeyboardInterrupt
        self.reports.append(report)
        return report.epoch != self.stop

    @property
    def epochs(self) -> list[int]:
        return [report.epoch for report in self.reports]

    def timeless(self) -> dict[int, dict[str, float]]:
        """epoch -> metrics, without those that are times."""
        return {
            r.epoch: {name: value for name, value in r.metrics.items() if name not in TIMING}
            for r in self.reports
        }


def run(trial: TrialSpec, place: Workspace, **log: Any) -> Log:
    """Prepare and train."""
    heard = Log(**log)
    prepare(trial, place)
    train(trial, heard, place)
    return heard


def final(place: Workspace) -> dict[str, Any]:
    """All that the last checkpoint holds, flat, without times."""
    loaded = Checkpoints(place.folder / "checkpoints").load()
    assert loaded is not None
    flat: dict[str, Any] = {}

    def walk(value: Any, path: str) -> None:
        if isinstance(value, dict):
            for key, inner in value.items():
                walk(inner, f"{path}/{key}")
        elif isinstance(value, (list, tuple)):
            for key, inner in enumerate(value):
                walk(inner, f"{path}/{key}")
        elif path.rpartition("/")[2] not in TIMING:
            flat[path] = value

    walk(loaded[1], "")
    return flat


def assert_same_bits(a: dict[str, Any], b: dict[str, Any]) -> None:
    assert a.keys() == b.keys()
    for path, value in a.items():
        same = torch.equal(value, b[path]) if isinstance(value, torch.Tensor) else value == b[path]
        assert same, path


@contextlib.contextmanager
def asked(hear: Callable[[str, torch.Tensor], object]) -> Iterator[None]:
    """Inside, `hear` is told of every pass through a teacher in training: what is asked, and the images."""
    answer = Teacher.answer

    def heard(self: Teacher, what: Any, images: torch.Tensor) -> torch.Tensor:
        hear(what, images)
        return answer(self, what, images)

    with mock.patch.object(Teacher, "answer", heard):
        yield


def process_group(rank: int, workers: int, rendezvous: str) -> None:
    """Join a gloo group in a process of its own, with one thread."""
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    torch.set_num_threads(1)
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{rendezvous}", rank=rank, world_size=workers
    )
