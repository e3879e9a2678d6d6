"""What a lane's Ray Train workers do: take a task, run it, answer, ask again."""

from __future__ import annotations

import contextlib
import importlib
import shutil
import socket
import traceback
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ray
import ray.train
import ray.train.collective

from raykd.lanes.failures import explain, may_be_a_peers
from raykd.lanes.messages import Message, Task
from raykd.storage.beacon import fetch_teachers, find
from trainables import patience
from trainables.errors import StorageLost, SweepFailed, TrialFailed, UserError
from trainables.files import guard, opened, own_folder

if TYPE_CHECKING:
    from trainables.loop import Workspace
    from trainables.trial import TrialSpec


def work(config: Mapping[str, Any]) -> None:
    """The training function of every lane: runs until the mailbox closes the lane."""
    import torch

    from trainables.loop import EpochReport, Workspace
    from trainables.progress import listening
    from trainables.trial import TrialSpec

    context = ray.train.get_context()
    rank, world = context.get_world_rank(), context.get_world_size()
    mailbox = ray.get_actor(config["mailbox"], namespace=config["namespace"])
    lane = config["lane"]
    host = socket.gethostname()
    patience.tell_with(lambda text: mailbox.say.remote(f"{host}: {text}"))
    kept: Any = ray.get(mailbox.kept.remote())
    courier, blind = find(config, kept)
    if blind:
        ray.get(mailbox.refuse.remote(lane, f"{host} {blind}"))
        return
    guard(Path(config["cache"]), shared=True)
    torch.set_num_threads(max(1, int(config["cpus"])))
    actions = {name: _load(where) for name, where in config["actions"].items()}
    # One word that all ranks of this start of the group share, so that a restart can be told from it.
    generation = ray.train.collective.broadcast_from_rank_zero(uuid.uuid4().hex)
    node = ray.get_runtime_context().get_node_id()
    ray.get(mailbox.register.remote(lane, generation, rank, world, node))

    turn = 0
    while True:
        given = ray.get(mailbox.next_task.remote(lane, generation, rank, turn))
        if given is None:
            return
        turn, task = given

        def report(said: EpochReport, task: Task = task) -> bool:
            message = Message(epoch=said.epoch, metrics=dict(said.metrics), note=said.note)
            go: bool = ray.get(mailbox.report.remote(lane, generation, rank, task.id, message))
            return go

        workspace = Workspace(Path(task.folder), Path(config["cache"]), Path(config["teachers"]), courier)
        failed: str | None = None
        mistake = False
        trials: list[TrialSpec] = []
        try:
            trials = [TrialSpec.model_validate(trial) for trial in task.trials]
            if courier is not None:
                fetch_teachers(courier, trials, workspace)
            listener = listening(lambda where: mailbox.progress.remote(lane, generation, where))
            with listener, patience.losing(f"{task.folder} cannot be used"):
                actions[task.action](*trials, report=report, workspace=workspace)
            if courier is not None and rank == 0:  # all of it is on the storage
                shutil.rmtree(workspace.folder, ignore_errors=True)
        except StorageLost as error:  # no fault of the trial's, which goes on when the sweep does
            ray.get(mailbox.refuse.remote(lane, f"{host}: {error}"))
            return
        except (TrialFailed, UserError) as error:
            # Decided alike on all ranks, so the group is still in step.
            failed, mistake = str(error), isinstance(error, UserError)
        except Exception as error:
            failed = explain(error, next(iter(trials), None))
            _keep(workspace, rank)
            if world > 1 and may_be_a_peers(error):
                # The group is started again, and the task goes on from its checkpoint.
                ray.get(mailbox.broke.remote(lane, failed, generation))
                raise
            if world > 1 or _poisoned(error):  # the other ranks may wait for this one in a collective
                ray.get(mailbox.finish.remote(lane, generation, rank, task.id, failed))
                raise
        ray.get(mailbox.finish.remote(lane, generation, rank, task.id, failed, mistake))


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
        if workspace.carrier is not None:
            workspace.carrier.push(path)
