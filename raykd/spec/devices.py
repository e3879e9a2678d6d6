"""The device that a sweep's workers train on, in words, for a run's first lines, plans and the doctor."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from raykd.spec.sections import WorkersSpec
from trainables.core.errors import UserError

Nodes = Sequence[Mapping[str, Any]]  # as `ray.nodes()` lists them


def where(workers: WorkersSpec, nodes: Nodes) -> str:
    """`each worker on a GPU of its own (workers.gpus is left out)`, or on a part of one, or on the CPU."""
    gpus = workers.on(nodes).gpus or 0.0
    # Workers on the CPU need no reason where there is no GPU.
    why = " (workers.gpus is left out)" if workers.gpus is None and gpus else ""
    if not gpus:
        return "each worker on the CPU"
    if gpus < 1:
        return f"each worker on {gpus:g} of a GPU{why}"
    return f"each worker on a GPU of its own{why}"


def idle_gpus(workers: WorkersSpec, nodes: Nodes) -> list[str]:
    """A remark where there are GPUs and the workers train on the CPU, or reserve more GPUs than they use."""
    there = gpus_of(nodes)
    if there and workers.gpus == 0:
        whose = "the GPU here stays" if there == 1 else f"the {there} GPUs here stay"
        return [f"workers.gpus: 0 trains on the CPU, and {whose} unused; left out, each worker has one"]
    if (workers.gpus or 0) > 1:
        return [f"workers.gpus: {workers.gpus:g} takes so many GPUs a worker, and a worker trains on one"]
    return []


def gpus_of(nodes: Nodes) -> int:
    """The number of GPUs of the live ones of these nodes."""
    return sum(int(node["Resources"].get("GPU", 0)) for node in nodes if node.get("Alive", True))


def check_gpus(workers: WorkersSpec) -> None:
    """Raise `UserError` for workers with several GPUs. Old ledgers have them, so the section accepts them."""
    gpus = workers.gpus or 0
    if gpus > 1:
        raise UserError(
            "workers.gpus",
            "a worker trains on one GPU, and the others would stay unused",
            value=gpus,
            expected=f"`{{count: {int(gpus) * workers.count}, gpus: 1}}`: as many workers as GPUs",
        )
