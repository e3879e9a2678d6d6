"""The loop of a lane's worker, without Ray: a broker that is a list gives tasks and notes what is said."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import ray
import ray.train
import torch

from raykd.lanes import worker
from raykd.lanes.actions import ACTIONS
from raykd.lanes.messages import Task
from raykd.spec.search import load_sweep
from trainables.core.errors import TrialFailed, UserError
from trainables.core.workers import on_device

OOM = "CUDA out of memory. Tried to allocate 4.00 GiB. GPU 0 has a total capacity of 80.00 GiB"


class Broker:
    """Gives each task once, and then closes the lane; `events` has what workers said of a task's end."""

    def __init__(self, events: list[str], *tasks: Task) -> None:
        self._events, self._tasks = events, list(tasks)

    def __getattr__(self, name: str) -> Any:
        return SimpleNamespace(remote=lambda *said: self._answer(name))

    def _answer(self, name: str) -> Any:
        if name == "next_task":
            return (1, self._tasks.pop(0)) if self._tasks else None
        if name in ("finish", "crowded", "sick", "refuse"):
            self._events.append(name)
        return None


class Held:
    """What an action keeps on the GPU. It refers to itself, so only a collection frees it."""

    def __init__(self) -> None:
        self.itself = self


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[str]]:
    """Run one action in a worker with this share of a GPU; what happened, in order."""
    events: list[str] = []
    held: list[weakref.ref[Held]] = []

    def emptied() -> None:
        events.append(
            "emptied" if all(ref() is None for ref in held) else "emptied, and the action held some"
        )

    context = SimpleNamespace(get_world_rank=lambda: 0, get_world_size=lambda: 1, get_node_id=lambda: "node")
    monkeypatch.setattr(torch.cuda, "empty_cache", emptied)
    monkeypatch.setattr(torch, "set_num_threads", lambda number: None)
    monkeypatch.setattr(ray, "get", lambda answer: answer)
    monkeypatch.setattr(ray, "get_runtime_context", lambda: context)
    monkeypatch.setattr(ray.train, "get_context", lambda: context)
    group = SimpleNamespace(id=SimpleNamespace(hex=lambda: "group"))
    monkeypatch.setattr(ray.util, "get_current_placement_group", lambda: group)
    monkeypatch.setattr(worker.storage_retry, "tell_with", lambda tell: None)
    monkeypatch.setattr(
        worker, "find", lambda config, kept: (SimpleNamespace(discard=lambda folder: None), "")
    )
    monkeypatch.setattr(worker, "session_folder", lambda: tmp_path)
    for name in ("keep_closed", "make_private", "guard", "fetch_teachers", "_take_device", "_keep"):
        monkeypatch.setattr(worker, name, lambda *given, **named: None)
    monkeypatch.setattr(worker, "limit_memory", lambda *given: None)

    def ran(
        action: str, share: float, fail: Callable[[], Exception] | None = None, alone: int = 0
    ) -> list[str]:
        def act(*trials: Any, report: Any, workspace: Any) -> None:
            tensors = Held()
            held.append(weakref.ref(tensors))
            if fail is not None:
                try:
                    raise fail()
                except UserError as mistake:
                    raise UserError("teacher", "said by what called it") from mistake

        monkeypatch.setattr(worker, "_load", lambda where: act)
        trial = load_sweep("quickstart").trial({}, 0).model_dump(mode="json")
        broker = Broker(events, Task("t", action, [trial], str(tmp_path), alone=alone))
        monkeypatch.setattr(ray, "get_actor", lambda name, namespace: broker)
        config = dict.fromkeys(("broker", "namespace", "lane", "cache", "teachers"), str(tmp_path))
        with on_device(torch.device("cpu")):
            worker.work({**config, "gpus": share, "cpus": 1, "targets": "off", "actions": ACTIONS})
        return events

    return ran


@pytest.mark.parametrize("action", ACTIONS)
def test_an_action_leaves_nothing_on_a_gpu_that_is_shared(run: Callable[..., list[str]], action: str) -> None:
    assert run(action, 0.5) == ["emptied", "finish"], "before the broker may give a neighbour a task"


@pytest.mark.parametrize(
    ("fail", "alone", "said"),
    [
        (lambda: torch.OutOfMemoryError(OOM), 0, "crowded"),
        (lambda: torch.OutOfMemoryError(OOM), 2, "finish"),
        (lambda: TrialFailed("its loss is not finite"), 0, "finish"),
        (lambda: UserError("data.path", "no images"), 0, "finish"),
        (lambda: KeyError("a bug"), 0, "finish"),
    ],
    ids=["crowded", "alone", "failed", "mistake", "bug"],
)
def test_an_action_that_fails_leaves_nothing_there_either(
    run: Callable[..., list[str]], fail: Callable[[], Exception], alone: int, said: str
) -> None:
    assert run("teacher", 0.5, fail, alone) == ["emptied", said]


@pytest.mark.parametrize("share", [0, 1])
def test_a_worker_that_shares_no_gpu_keeps_the_memory(run: Callable[..., list[str]], share: float) -> None:
    assert run("teacher", share) == ["finish"]
