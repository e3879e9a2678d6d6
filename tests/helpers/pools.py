"""Lane pools for tests, with the trainables of `quick.py`."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from raykd.lanes.messages import Message, Task
from raykd.spec.sections import WorkersSpec
from raykd.storage.open_storage import open_sweep
from trainables.spec.trial import StudentSpec, TrialSpec

ACTIONS = {
    name: f"quick:{name}"
    for name in (
        "count",
        "count_together",
        "nothing",
        "die",
        "stumble",
        "fail_on",
        "crowd",
        "spoil",
        "refuse",
        "train_and_weigh",
        "hang",
        "ask_for",
    )
}
ACTIONS["train"] = ACTIONS["count"]
TRIAL = TrialSpec(method="none", config={"gamma": 1.0}, student=StudentSpec(arch="none"), epochs=5)


def until(condition: Callable[[], Any], seconds: float = 60, said: str = "") -> Any:
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, f"waited {seconds} s in vain {said}"
        time.sleep(0.05)
    return found


@contextmanager
def pool_of(tmp_path: Path, workers: WorkersSpec, limit: int, **more: Any) -> Iterator[Any]:
    from raykd.lanes.pool import LanePool

    pool = LanePool(
        workers,
        limit,
        sweep=open_sweep(tmp_path),
        scratch=tmp_path / "ray",
        cache=Path(os.environ["RAYKD_CACHE"]),
        teachers=tmp_path / "teachers",
        actions=ACTIONS,
        **{"on_event": lambda text: None, **more},
    )
    with pool:
        yield pool


@contextmanager
def quick_importable() -> Iterator[None]:
    """Workers that are started inside find `quick.py`."""
    here = str(Path(__file__).parent)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join(filter(None, [here, os.environ.get("PYTHONPATH")])))
        yield


def task(folder: Path, name: str, action: str = "count", **config: Any) -> Task:
    trial = TRIAL.model_copy(update={"config": {**TRIAL.config, **config}})
    return Task(name, action, [trial.model_dump(mode="json")], str(folder / name))


def run(pool: Any, task: Task) -> list[Message]:
    said: list[Message] = []
    pool.run(task, said.append)
    return said
