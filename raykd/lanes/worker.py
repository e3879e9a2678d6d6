"""What a lane's Ray Train workers do: take a task from the broker, run it, tell how it ended, and again."""

from __future__ import annotations

import contextlib
import importlib
import socket
import tempfile
import time
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import ray
import ray.train

from raykd.lanes.cluster import session_folder
from raykd.lanes.devices import Unusable, assigned_gpu, leave_memory, limit_memory, use_gpu
from raykd.lanes.failures import beside_others, explain, gpu_fault, mended_by_restart, out_of_memory
from raykd.lanes.messages import Message, Task
from raykd.storage.marker import fetch_teachers, find
from raykd.storage.owners import keep_closed, make_private
from trainables.core import plugins, storage_retry
from trainables.core.errors import StorageLost, SweepFailed, TrialFailed, UserError
from trainables.core.files import guard, opened, own_folder
from trainables.core.heartbeat import heartbeat_listener
from trainables.spec.trial import TrialSpec
from trainables.training.workspace import EpochReport, Workspace

_NEIGHBOURS_S = 30.0  # before a GPU whose memory other processes hold is tried again: they may end


def work(config: Mapping[str, Any]) -> None:
    """The training function of every lane: runs until the broker closes the lane."""
    import torch

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
    try:
        if brought := config.get("plugins"):
            # A new folder that no other user can enter; it goes with Ray's session.
            plugins.unpack(brought, Path(tempfile.mkdtemp(prefix="raykd-plugins-", dir=session_folder())))
    except UserError as error:  # of this node: no trial is tried here
        ray.get(broker.refuse.remote(lane, f"{host}: {error}"))
        return
    actions = {name: _load(where) for name, where in config["actions"].items()}
    # All ranks of this start of the group share one generation; a restart has another placement group.
    generation = ray.util.get_current_placement_group().id.hex()
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

        workspace = Workspace(
            Path(task.folder), Path(config["cache"]), Path(config["teachers"]), transfer, config["targets"]
        )
        failed: str | None = None
        mistake: UserError | None = None
        trials: list[TrialSpec] = []
        try:
            if task.alone:
                limit_memory(config["gpus"], task.alone)
            trials = [TrialSpec.model_validate(trial) for trial in task.trials]
            for trial in trials:
                plugins.require(trial.plugins)
            fetch_teachers(transfer, trials, workspace)
            listener = heartbeat_listener(lambda where: broker.heartbeat.remote(lane, generation, where))
            with listener, storage_retry.losing(f"{task.folder} cannot be used"):
                actions[task.action](*trials, report=report, workspace=workspace, **task.asked)
            if rank == 0:
                transfer.discard(workspace.folder)
        except StorageLost as error:  # not the trial's fault: it goes on when the sweep is resumed
            ray.get(broker.refuse.remote(lane, f"{host}: {error}"))
            return
        except (TrialFailed, UserError) as error:
            # All ranks raise these together, so the group is still in step.
            failed, mistake = str(error), error if isinstance(error, UserError) else None
        except Exception as error:
            failed = explain(error, next(iter(trials), None))
            _keep(workspace, rank)
            if task.alone and out_of_memory(error):
                failed += " (it was alone on its GPU)"
            elif beside_others(error, config["gpus"]):
                leave_memory(config["gpus"], error)
                ray.get(broker.crowded.remote(lane, task.id, generation, failed))
                if world > 1:  # the other ranks may wait for this one in a collective
                    raise
                continue
            if config["gpus"] and (why := gpu_fault(error, config["gpus"], task.alone)):
                # The CUDA context may be lost, so this process ends. The task goes on from its checkpoint.
                if out_of_memory(error):  # other processes hold the memory
                    time.sleep(_NEIGHBOURS_S)
                ray.get(broker.sick.remote(lane, rank, why, task.id, generation))
                raise
            if world > 1 and mended_by_restart(error):
                # The group is started again, and the task goes on from its checkpoint.
                ray.get(broker.broke.remote(lane, failed, generation))
                raise
            # The other ranks may wait for this one in a collective.
            if world > 1 or _context_may_be_broken(error):
                ray.get(broker.finish.remote(lane, generation, rank, task.id, failed))
                raise
        if task.alone:
            limit_memory(config["gpus"])
        # Before the broker hears of the end: a neighbour may then get a task that counts on the memory.
        leave_memory(config["gpus"], mistake)
        ray.get(broker.finish.remote(lane, generation, rank, task.id, failed, mistake))


def _take_device(config: Mapping[str, Any], broker: Any, rank: int, world: int) -> None:
    """Train on what Ray gave this worker. Tells the broker before it raises `Unusable`."""
    lane, gpu = config["lane"], assigned_gpu() if config["gpus"] else None
    if config["gpus"] and gpu is None:
        host = socket.gethostname()
        reason = f"{host}: Ray gave a worker no GPU, and workers.gpus is {config['gpus']:g}"
        ray.get(broker.refuse.remote(lane, reason))
        raise Unusable(reason)
    if gpu is not None and not ray.get(broker.place.remote(lane, rank, world, gpu.key, str(gpu))):
        raise Unusable(f"{gpu} is in quarantine")
    try:
        use_gpu(gpu, config["gpus"])
    except Unusable as error:
        ray.get(broker.sick.remote(lane, rank, str(error), certain=error.certain))
        raise


def _context_may_be_broken(error: Exception) -> bool:
    """Whether this process's CUDA context may be broken. It survives exhausted memory."""
    import torch

    return torch.cuda.is_initialized() and not isinstance(error, torch.cuda.OutOfMemoryError)


def _load(where: str) -> Callable[..., None]:
    """The function at module:function."""
    module, _, function = where.partition(":")
    found: Callable[..., None] = getattr(importlib.import_module(module), function)
    return found


def _keep(workspace: Workspace, rank: int) -> None:
    """Write the traceback beside the trial's files, if that is possible."""
    text = f"host {socket.gethostname()}, rank {rank}\n{traceback.format_exc()}"
    path = workspace.folder / f"error-rank{rank}.txt"
    with contextlib.suppress(OSError, SweepFailed, UserError):
        own_folder(path.parent)
        with opened(path, "w") as file:
            file.write(text)
        workspace.transfer.push(path)
