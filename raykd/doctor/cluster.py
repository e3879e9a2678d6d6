"""Checks of a whole cluster, from one of its machines: `raykd doctor [SPEC] --address auto`.

A small task on every node examines that node (`node.py`); `compare.py` compares the answers.
"""

from __future__ import annotations

import json
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
from raykd.lanes.autoscaler import autoscales
from raykd.lanes.cluster import connected, live_nodes, ray_address
from raykd.lanes.quarantine import in_quarantine
from raykd.spec.search import SearchSpec
from raykd.storage.file_transfer import credentials
from raykd.storage.open_storage import open_storage
from trainables.core.errors import first_line

_LIMIT_S = 240.0  # of each task


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
            request = {"storage": storage, "marker": marker, "spec": spec and spec.model_dump(mode="json")}
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
    answers = _ask(requests)
    found = []
    for node in alive:
        answer, has = answers[node["NodeID"]], (node["NodeID"], node["NodeManagerAddress"], node["Resources"])
        found.append(Node(*has, answer.get("facts", {}), answer.get("error", "")))
    return found


def _read(nodes: Sequence[Node], request: dict[str, Any]) -> dict[str, list[str]]:
    """node -> the nodes whose files it does not see."""
    tokens = {node.id: node.facts["token"] for node in nodes if "token" in node.facts}
    request = {**request, "do": "read", "nodes": tokens}
    answers = _ask(dict.fromkeys(tokens, request))
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
                there = ray.get(clock.options(scheduling_strategy=_at(node.id)).remote(), timeout=30)
                half = (time.time() - began) / 2
                best = min(best, (half, there - began - half))
        found.append(node._replace(skew_s=best[1], skew_within_s=best[0]))
    return found


def _ask(requests: Mapping[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Send all requests at the same time: node -> {"facts": …} or {"error": why}."""
    import ray

    def ask(request: str, seconds: float, given: dict[str, str]) -> dict[str, Any]:
        # Ray pickles this function by value, so that a node without raykd can say so.
        import json
        import os
        import subprocess
        import sys

        # Ray hides the GPUs from a task that asks for none.
        hidden = os.environ.get("CUDA_VISIBLE_DEVICES") == ""
        env = {k: v for k, v in os.environ.items() if not (hidden and k == "CUDA_VISIBLE_DEVICES")} | given
        command = [sys.executable, "-m", "raykd.doctor.node"]
        try:
            done = subprocess.run(
                command,
                input=request,
                capture_output=True,
                text=True,
                timeout=seconds,
                env=env,
                cwd="/",  # the raykd that is installed, and not one that lies where Ray was started
                check=False,
            )
        except subprocess.TimeoutExpired:
            return {"error": f"no answer within {seconds:g} s"}
        if done.returncode:
            lines = done.stderr.strip().splitlines() or [f"ended with {done.returncode}"]
            return {"error": f"{sys.executable}: {lines[-1]}"}
        return {"facts": json.loads(done.stdout.splitlines()[-1])}

    task = ray.remote(num_cpus=0, max_retries=0)(ask)
    pending = {
        task.options(scheduling_strategy=_at(node)).remote(json.dumps(request), _LIMIT_S, credentials()): node
        for node, request in requests.items()
    }
    if not pending:
        return {}
    ready, _ = ray.wait(list(pending), num_returns=len(pending), timeout=_LIMIT_S + 30)
    answers: dict[str, dict[str, Any]] = {
        node: {"error": f"no task was started within {_LIMIT_S + 30:g} s"} for node in pending.values()
    }
    for reference in ready:
        try:
            answers[pending[reference]] = ray.get(reference)
        except Exception as error:
            answers[pending[reference]] = {"error": first_line(error)}
    return answers


def _at(node: str) -> Any:
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    return NodeAffinitySchedulingStrategy(node, soft=False)
