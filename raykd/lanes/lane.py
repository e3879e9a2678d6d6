"""One lane of the pool: its Ray Train run, from the worker group's start until the lane closes."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray.train

from raykd.lanes.cluster import session_folder
from raykd.lanes.group import GroupConfig, LaneTrainer, NameGroup, TellController
from raykd.lanes.worker import work
from raykd.spec.sections import WorkersSpec

_COLLECTIVE_S = 6 * 3600  # timeout of collectives: a worker may decode a large data set on its node


@dataclass
class Lane:
    """What the driver knows of a lane."""

    name: str
    thread: threading.Thread
    controller_node: str  # Ray's id of the node that Ray Train's controller is meant to run on
    was_warm: bool = False
    nodes: Sequence[str] = ()  # the nodes on which it was warm last
    error: str = ""
    closing_since: float | None = None
    leaving: bool = False  # it ends after its present epoch


def fit(name: str, workers: WorkersSpec, config: Mapping[str, Any], scratch: Path, node: str) -> None:
    """Run a lane until it closes, its controller on `node`, if that lives.

    `config` is passed to its workers. Ray's own files go to `scratch`, which is on this node; those of a
    controller elsewhere go to the folder of Ray's session there, because nobody removes `scratch` there.

    Raises whatever else ends the run.
    """
    gpus = workers.gpus or 0.0
    # NCCL refuses two ranks on one GPU, and one worker alone needs no NCCL.
    nccl = gpus >= 1 and workers.count > 1
    run = f"{config['broker']}-{name}"
    here = node == ray.get_runtime_context().get_node_id()
    callbacks: list[Any] = [
        TellController(config["broker"], config["namespace"], name),
        NameGroup(run),
    ]  # of internal kinds
    trainer = LaneTrainer(
        work,
        train_loop_config={**config, "lane": name},
        backend_config=GroupConfig(backend="nccl" if nccl else "gloo", timeout_s=_COLLECTIVE_S),
        scaling_config=ray.train.ScalingConfig(
            num_workers=workers.count, use_gpu=gpus > 0, resources_per_worker=workers.resources
        ),
        run_config=ray.train.RunConfig(
            name=run,
            storage_path=str(scratch if here else session_folder() / "raykd"),
            failure_config=ray.train.FailureConfig(max_failures=-1),
            callbacks=callbacks,
        ),
    )
    trainer.controller_node, trainer.elsewhere = node, not here
    trainer.fit()
