"""Checks of a whole cluster, from one of its machines: `raykd doctor [SPEC] --address auto`.

A small task on every node examines that node (`node.py`); `compare.py` compares the answers.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from raykd.doctor import compare
from raykd.doctor.check import Check
from raykd.doctor.compare import Node
from raykd.doctor.node import place, write
from raykd.doctor.sweep_checks import check_spec
from raykd.lanes import plugin_node
from raykd.lanes.ask_nodes import ask_nodes, at
from raykd.lanes.autoscaler import autoscales
from raykd.lanes.cluster import connected, live_nodes, ray_address
from raykd.lanes.quarantine import in_quarantine
from raykd.spec.plugins import code_of
from raykd.spec.search import SearchSpec
from raykd.storage.open_storage import open_storage
from trainables.core.errors import first_line


def checks(
    storage: str,
    spec: SearchSpec | None = None,
    address: str | None = "auto",
    expected: Sequence[str] = (),
) -> Iterator[Check]:
    """Every check of the cluster at `address`, one by one.

    `storage` is a folder or a URI. `expected` are the addresses of the nodes that should be there, or one
    number, how many. Each task has four minutes. Raises `UserError` if no cluster answers.
    """
    if "://" not in storage or storage.lower().startswith("file://"):
        storage = str(open_storage(storage).folder.absolute())  # a node has another current folder
    with connected(ray_address(address)):
        import ray

        alive = live_nodes()
        yield compare.check_nodes(alive, len(ray.nodes()) - len(alive), expected)
        with _marker(storage) as (marker, problem):
            request = {
                "storage": storage,
                "marker": marker,
                "spec": spec and spec.model_dump(mode="json"),
                "plugins": plugin_node.request(code_of(spec)) if spec is not None else None,
            }
            found = _clocks(_look(alive, request))
            nodes = [node for node in found if not node.error]
            yield compare.check_answers(found)
            if not nodes:
                return
            yield compare.check_versions(nodes)
            yield from compare.check_each(nodes)
            yield compare.check_gpus(nodes)
            if sick := in_quarantine():
                yield compare.check_quarantine(sick)
            unseen = {} if problem else _read(nodes, request)
            yield compare.check_storage(storage, problem, nodes, unseen)
        yield compare.check_clocks(nodes)
        if spec is not None:
            yield compare.check_inputs(nodes)
            yield list(check_spec(spec))[-1]  # the sweep as a whole; data and teacher were seen on every node
            yield compare.check_room(spec, alive, ray.available_resources(), autoscales())


@contextmanager
def _marker(storage: str) -> Iterator[tuple[str, str]]:
    """A temporary folder in the storage. Yields its name, and why it could not be made ("" if it was)."""
    marker, problem, made = f".raykd-doctor-{uuid.uuid4().hex[:12]}", "", None
    if "://" not in storage:
        above = [Path(storage), *Path(storage).parents]
        made = [folder for folder in above if not folder.exists()]
    try:
        files, root = place(storage)
        files.create_dir(f"{root}/{marker}", recursive=True)
        write(files, f"{root}/{marker}/driver", marker)
    except Exception as error:
        problem = first_line(error)
    try:
        yield marker, problem
    finally:
        with suppress(Exception):
            files.delete_dir(f"{root}/{marker}")
        for folder in made or ():
            with suppress(OSError):
                folder.rmdir()


def _look(alive: Sequence[Mapping[str, Any]], request: dict[str, Any]) -> list[Node]:
    """Every live node with its facts, or with the reason why there are none."""
    requests = {node["NodeID"]: {**request, "do": "look", "node": node["NodeID"]} for node in alive}
    answers = ask_nodes("raykd.doctor.node", requests)
    found = []
    for node in alive:
        answer, has = answers[node["NodeID"]], (node["NodeID"], node["NodeManagerAddress"], node["Resources"])
        found.append(Node(*has, answer.get("facts", {}), answer.get("error", "")))
    return found


def _read(nodes: Sequence[Node], request: dict[str, Any]) -> dict[str, list[str]]:
    """node -> the nodes whose files it does not see."""
    tokens = {node.id: node.facts["token"] for node in nodes if "token" in node.facts}
    request = {**request, "do": "read", "nodes": tokens}
    answers = ask_nodes("raykd.doctor.node", dict.fromkeys(tokens, request))
    return {node: answer.get("facts", {"unseen": ["anybody"]})["unseen"] for node, answer in answers.items()}


def _clocks(nodes: Sequence[Node]) -> list[Node]:
    """The nodes with the offsets of their clocks, from the fastest of three requests."""
    import ray

    clock = ray.remote(num_cpus=0)(lambda: time.time())
    found = []
    for node in nodes:
        best = (float("inf"), 0.0)
        with suppress(Exception):
            for _ in range(0 if node.error else 3):
                began = time.time()
                there = ray.get(clock.options(scheduling_strategy=at(node.id)).remote(), timeout=30)
                half = (time.time() - began) / 2
                best = min(best, (half, there - began - half))
        found.append(node._replace(skew_s=best[1], skew_within_s=best[0]))
    return found
