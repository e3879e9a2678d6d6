"""Sick GPUs are kept from lanes by holding them: Ray gives GPUs out by number and knows no «not this one».

A holder is an actor that asks its node for a GPU and does nothing with it. Which one it gets is Ray's choice,
so holders are started until one has the sick GPU, and the others are ended. A lane that gets the sick GPU in
the meantime says so when it starts (`TaskBroker.place`), and is ended.
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

from raykd.lanes.devices import given
from raykd.spec.sections import WorkersSpec

NAMED = (
    "raykd-quarantine-"  # how the names of holders begin; behind that and 8 digits, what they hold and why
)
_ANSWER_S = 20.0  # a holder that has not started by then waits for a GPU that others have
_PAUSE_S = 10.0  # before all are tried again


class _Holder:
    def key(self) -> str:
        gpu = given()
        return gpu.key if gpu is not None else ""


@dataclass
class _Search:
    """The holders of one GPU's node that were started until one has that GPU."""

    holders: list[Any] = field(default_factory=list)
    answer: Any = None  # of the last one
    since: float = 0.0
    not_before: float = 0.0


class Quarantine:
    """The GPUs of this sweep that were found sick. `on_found(gpu, reason)` hears of each once."""

    def __init__(self, namespace: str, on_found: Callable[[str, str], object]) -> None:
        self._namespace = namespace
        self._on_found = on_found
        self.found: dict[str, tuple[str, str]] = {}  # key -> name for people, reason
        self._held: dict[str, Any] = {}
        self._searches: dict[str, _Search] = {}

    def hear(self, found: Mapping[str, tuple[str, str]]) -> None:
        """What the broker knows of."""
        for key, (name, reason) in found.items():
            if key not in self.found:
                self.found[key] = (name, reason)
                self._on_found(name, reason)

    def holds(self, gpus: Iterable[str]) -> bool:
        """Whether one of these GPUs, by key, is in quarantine."""
        return any(gpu in self.found for gpu in gpus)

    def without(self, nodes: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
        """The nodes, as `ray.nodes()` lists them, as if they had no sick GPUs."""
        left = []
        for node in nodes:
            sick = sum(key.partition("/")[0] == node["NodeID"] for key in self.found)
            has = node["Resources"]
            gpus = max(0.0, has.get("GPU", 0.0) - sick)
            left.append({**node, "Resources": {**has, "GPU": gpus}} if sick else node)
        return left

    def leaves_nothing(self, workers: WorkersSpec, nodes: Collection[dict[str, Any]]) -> bool:
        """Whether these nodes could hold a lane if no GPU of theirs were sick, and cannot now."""
        return bool(self.found) and bool(workers.lanes(nodes)) and not workers.lanes(self.without(nodes))

    def __str__(self) -> str:
        return "; ".join(f"{name}: {reason}" for name, reason in self.found.values())

    def hold(self, nodes: Collection[Mapping[str, Any]], in_use: Collection[str]) -> bool:
        """Go on taking the sick GPUs that no lane has any more (`in_use`: those that one has). Never waits.

        True while that takes only moments, and so no lane should be opened.
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
        """Hold nothing any more."""
        for holder in [*self._held.values(), *(h for s in self._searches.values() for h in s.holders)]:
            _end(holder)
        self._held.clear()
        self._searches.clear()

    def _go_on(self, key: str, node: str, gpus: int) -> bool:
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
    with contextlib.suppress(Exception):  # gone, with its node or with Ray
        ray.kill(holder)


def in_quarantine() -> list[str]:
    """What sweeps on this cluster hold in quarantine: `GPU 3 of host: why`."""
    named = ray.util.list_named_actors(all_namespaces=True)
    return sorted(actor["name"][len(NAMED) + 9 :] for actor in named if actor["name"].startswith(NAMED))
