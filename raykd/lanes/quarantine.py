"""Sick GPUs are kept from lanes by holding them: Ray cannot be told to leave one GPU out.

A holder is an actor that asks its node for a GPU and does nothing with it. Ray chooses which GPU it gets. So
holders are started until one has the sick GPU, and the others are ended. A lane that gets the sick GPU in the
meantime says so when it starts (`TaskBroker.place`), and is ended.
"""

from __future__ import annotations

import contextlib
import time
import uuid
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import ray
import ray.exceptions
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from raykd.lanes.devices import assigned_gpu
from raykd.spec.sections import WorkersSpec

NAMED = "raykd-quarantine-"  # a holder's name: this, 8 hex digits, a space, the GPU and why it is held
_ANSWER_S = 20.0  # a holder that has not started by then waits for a GPU that others use
_PAUSE_S = 10.0  # before a search starts again


class _Holder:
    """The actor."""

    def key(self) -> str:
        """The key of the GPU that it got."""
        gpu = assigned_gpu()
        return gpu.key if gpu is not None else ""


@dataclass
class _Search:
    """The search for one GPU: the holders that were started on its node so far."""

    holders: list[Any] = field(default_factory=list)
    answer: Any = None  # the last holder's call of `key`, until it is answered
    since: float = 0.0  # when the last holder was started
    not_before: float = 0.0


class Quarantine:
    """The sick GPUs of this sweep. `on_found(gpu, reason)` is called once for each."""

    def __init__(self, namespace: str, on_found: Callable[[str, str], object]) -> None:
        self._namespace = namespace
        self._on_found = on_found
        self.found: dict[str, tuple[str, str]] = {}  # key -> name for people, reason
        self._held: dict[str, Any] = {}
        self._searches: dict[str, _Search] = {}

    def hear(self, found: Mapping[str, tuple[str, str]]) -> None:
        """Add the GPUs that the broker knows to be sick: key -> (name for people, reason)."""
        for key, (name, reason) in found.items():
            if key not in self.found:
                self.found[key] = (name, reason)
                self._on_found(name, reason)

    def holds(self, gpus: Iterable[str]) -> bool:
        """Whether one of these GPUs, by key, is in quarantine."""
        return any(gpu in self.found for gpu in gpus)

    def without(self, nodes: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
        """The nodes, in the form of `ray.nodes()`, without their sick GPUs."""
        left = []
        for node in nodes:
            sick = sum(key.partition("/")[0] == node["NodeID"] for key in self.found)
            has = node["Resources"]
            gpus = max(0.0, has.get("GPU", 0.0) - sick)
            left.append({**node, "Resources": {**has, "GPU": gpus}} if sick else node)
        return left

    def leaves_nothing(self, workers: WorkersSpec, nodes: Collection[dict[str, Any]]) -> bool:
        """Whether these nodes could hold a lane only if none of their GPUs were sick."""
        return bool(self.found) and bool(workers.lanes(nodes)) and not workers.lanes(self.without(nodes))

    def __str__(self) -> str:
        return "; ".join(f"{name}: {reason}" for name, reason in self.found.values())

    def hold(self, nodes: Collection[Mapping[str, Any]], in_use: Collection[str]) -> bool:
        """Take the sick GPUs that no lane has, step by step; never waits. `in_use`: the GPUs that lanes have.

        True if a sick GPU may be held in a moment: no lane should be opened until then, as it might get it.
        """
        gpus = {node["NodeID"]: int(node["Resources"].get("GPU", 0)) for node in nodes}
        pressing = False
        for key in self.found:
            node = key.partition("/")[0]
            if key in self._held or key in in_use or node not in gpus:
                continue
            pressing |= self._go_on(key, node, gpus[node])
        return pressing

    def release(self) -> None:
        """End all holders."""
        for holder in [*self._held.values(), *(h for s in self._searches.values() for h in s.holders)]:
            _end(holder)
        self._held.clear()
        self._searches.clear()

    def _go_on(self, key: str, node: str, gpus: int) -> bool:
        """One step of the search for a GPU on a node that has `gpus` of them. True while it waits for Ray."""
        search = self._searches.setdefault(key, _Search())
        now = time.monotonic()
        if search.answer is not None:
            with contextlib.suppress(ray.exceptions.GetTimeoutError):
                try:
                    got = ray.get(search.answer, timeout=0)
                except ray.exceptions.RayActorError:
                    got = None
                search.answer = None
                if got == key:
                    self._held[key] = search.holders.pop()
                    self._start_over(search, now)
                    return False
        if search.answer is not None and now - search.since < _ANSWER_S:
            return True
        if search.answer is not None or len(search.holders) >= gpus:  # somebody else has it
            self._start_over(search, now + _PAUSE_S)
        if now < search.not_before:
            return False
        name, reason = self.found[key]
        holder: Any = (
            ray.remote(_Holder)
            .options(
                name=f"{NAMED}{uuid.uuid4().hex[:8]} {name}: {reason}",
                namespace=self._namespace,
                num_cpus=0,
                num_gpus=1,
                scheduling_strategy=NodeAffinitySchedulingStrategy(node, soft=False),
            )
            .remote()
        )
        search.holders.append(holder)
        search.answer, search.since = holder.key.remote(), now
        return True

    @staticmethod
    def _start_over(search: _Search, not_before: float) -> None:
        for holder in search.holders:
            _end(holder)
        search.holders, search.answer, search.not_before = [], None, not_before


def _end(holder: Any) -> None:
    with contextlib.suppress(Exception):  # it is gone, with its node or with Ray
        ray.kill(holder)


def in_quarantine() -> list[str]:
    """The GPUs that sweeps on this cluster hold in quarantine: `GPU 3 of host: why`."""
    named = ray.util.list_named_actors(all_namespaces=True)
    return sorted(actor["name"][len(NAMED) + 9 :] for actor in named if actor["name"].startswith(NAMED))
