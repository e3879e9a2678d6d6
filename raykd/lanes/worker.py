"""What a lane's Ray Train workers do: take a task, run it, answer, ask again."""

from __future__ import annotations

import contextlib
import importlib
import socket
import time
import traceback
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ray
import ray.train
import ray.train.collective

from raykd.lanes.cluster import session_folder
from raykd.lanes.devices import Unusable, claim, given
from raykd.lanes.failures import explain, mended_by_restart, of_the_gpu, out_of_memory
from raykd.lanes.messages import Message, Task
from raykd.storage.marker import fetch_teachers, find
from raykd.storage.owners import keep_closed, make_private
from trainables.core import storage_retry
from trainables.core.errors import StorageLost, SweepFailed, TrialFailed, UserError
from trainables.core.files import guard, opened, own_folder

if TYPE_CHECKING:
    from trainables.spec.trial import TrialSpec
    from trainables.training.workspace import Workspace


_NEIGHBOURS_S = 30.0  # before a GPU whose memory others hold is tried again: they may be about to end


def work(config: Mapping[str, Any]) -> None:
    """The training function of every lane: runs until the broker closes the lane."""
    import torch

    from trainables.core.heartbeat import heartbeat_listener
    from trainables.spec.trial import TrialSpec
    from trainables.training.workspace import EpochReport, Workspace

    keep_closed(session_folder())
    make_private(Path(config["cache"]))
    context = ray.train.get_context()
    rank, world = context.get_world_rank(), context.get_world_size()
    broker = ray.get_actor(config["broker"], namespace=config["namespace"])
    lane = config["lane"]
    host = socket.gethostname()
    storage_retry.tell_with(lambda text: broker.say.remote(f"{host}: {text}"))
    kept: Any = ray.get(broker.kept.remote())
    transfer, blind = find(config, kept)
    if blind:
        ray.get(broker.refuse.remote(lane, f"{host} {blind}"))
        return
    _take_device(config, broker, rank, world)
    guard(Path(config["cache"]), shared=True)
    torch.set_num_threads(max(1, int(config["cpus"])))
    actions = {name: _load(where) for name, where in config["actions"].items()}
    # One word that all ranks of this start of the group share, so that a restart can be told from it.
    generation = ray.train.collective.broadcast_from_rank_zero(uuid.uuid4().hex)
    node = ray.get_runtime_context().get_node_id()
    ray.get(broker.register.remote(lane, generation, rank, world, node))

    turn = 0
    while True:
        given = ray.get(broker.next_task.remote(lane, generation, rank, turn))
        if given is None:
            return
        turn, task = given

        def report(said: EpochReport, task: Task = task) -> bool:
            message = Message(epoch=said.epoch, metrics=dict(said.metrics), note=said.note)
            go: bool = ray.get(broker.report.remote(lane, generation, rank, task.id, message))
            return go

        workspace = Workspace(Path(task.folder), Path(config["cache"]), Path(config["teachers"]), transfer)
        failed: str | None = None
        mistake = False
        trials: list[TrialSpec] = []
        try:
            trials = [TrialSpec.model_validate(trial) for trial in task.trials]
            fetch_teachers(transfer, trials, workspace)
            listener = heartbeat_listener(lambda where: broker.progress.remote(lane, generation, where))
            with listener, storage_retry.losing(f"{task.folder} cannot be used"):
                actions[task.action](*trials, report=report, workspace=workspace)
            if rank == 0:
                transfer.discard(workspace.folder)
        except StorageLost as error:  # no fault of the trial's, which goes on when the sweep does
            ray.get(broker.refuse.remote(lane, f"{host}: {error}"))
            return
        except (TrialFailed, UserError) as error:
            # Decided alike on all ranks, so the group is still in step.
            failed, mistake = str(error), isinstance(error, UserError)
        except Exception as error:
            failed = explain(error, next(iter(trials), None))
            _keep(workspace, rank)
            if config["gpus"] and (why := of_the_gpu(error, config["gpus"])):
                # This process's context may be lost, so it ends; the task goes on from its checkpoint.
                if out_of_memory(error):  # others had it
                    time.sleep(_NEIGHBOURS_S)
                ray.get(broker.sick.remote(lane, rank, why, task.id, generation))
                raise
            if world > 1 and mended_by_restart(error):
                # The group is started again, and the task goes on from its checkpoint.
                ray.get(broker.broke.remote(lane, failed, generation))
                raise
            if world > 1 or _poisoned(error):  # the other ranks may wait for this one in a collective
                ray.get(broker.finish.remote(lane, generation, rank, task.id, failed))
                raise
        ray.get(broker.finish.remote(lane, generation, rank, task.id, failed, mistake))


def _take_device(config: Mapping[str, Any], broker: Any, rank: int, world: int) -> None:
    """Train on what Ray gave this worker. Raises `Unusable`, which the broker then knows of."""
    lane, gpu = config["lane"], given() if config["gpus"] else None
    if config["gpus"] and gpu is None:
        host = socket.gethostname()
        reason = f"{host}: Ray gave a worker no GPU, and workers.gpus is {config['gpus']:g}"
        ray.get(broker.refuse.remote(lane, reason))
        raise Unusable(reason)
    if gpu is not None and not ray.get(broker.place.remote(lane, rank, world, gpu.key, str(gpu))):
        raise Unusable(f"{gpu} is in quarantine")
    try:
        claim(gpu, config["gpus"])
    except Unusable as error:
        ray.get(broker.sick.remote(lane, rank, str(error), certain=error.certain))
        raise


def _poisoned(error: Exception) -> bool:
    """Whether this process's CUDA context may be broken. Out of memory leaves it whole."""
    import torch

    return torch.cuda.is_initialized() and not isinstance(error, torch.cuda.OutOfMemoryError)


def _load(where: str) -> Callable[..., None]:
    module, _, function = where.partition(":")
    found: Callable[..., None] = getattr(importlib.import_module(module), function)
    return found


def _keep(workspace: Workspace, rank: int) -> None:
    """Leave the traceback beside the trial's files, if there is room for it."""
    text = f"host {socket.gethostname()}, rank {rank}\n{traceback.format_exc()}"
    path = workspace.folder / f"error-rank{rank}.txt"
    with contextlib.suppress(OSError, SweepFailed, UserError):
        own_folder(path.parent)
        with opened(path, "w") as file:
            file.write(text)
        workspace.transfer.push(path)
