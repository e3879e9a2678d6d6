"""Two workers compute what one does with all samples."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from trainables.core import plugins
from trainables.core.distributed import convert_sync_batch_norm, gather
from trainables.core.workers import rank, world_size
from trainables.methods import load_method
from trainables.methods.base import Batch
from trainables.planning.conformance.base import Check, hold
from trainables.planning.conformance.small_runs import make_batch, make_method, make_teacher
from trainables.training.parallel import data_parallel
from trainables.training.resolve import needs_teacher

_BATCH = 8
# What is compared, with tolerances relative and absolute. Sums of 1e-5 and less cancel to other last bits on
# other CPUs: 1.3e-5 was seen.
TOLERANCES = {"losses": (0.0, 1e-5), "gradients": (1e-4, 3e-5), "state": (1e-4, 1e-5)}


def train_share(
    name: str, config: Mapping[str, Any], batch_norm: str = "eval", accumulate: int = 1, spare: bool = False
) -> dict[str, Any]:
    """Two optimizer steps as the loop makes them; this worker's view of the result.

    `batch_norm` is the teacher's, `accumulate` the micro-batches of a step. With `spare` the method has a
    parameter that no pass uses.
    """
    teacher = make_teacher(batch_norm) if needs_teacher(load_method(name)) else None
    method = make_method(name, teacher=teacher, **config)
    if spare:
        method.register_parameter("spare", nn.Parameter(torch.ones(3)))
    model: nn.Module = method
    if world_size() > 1:
        convert_sync_batch_norm(method)
        if teacher is not None:
            convert_sync_batch_norm(teacher)
        model = data_parallel(method, accumulate, fast=True) or method
    optimizer = torch.optim.SGD([p for p in method.parameters() if p.requires_grad], 0.1)
    losses, gradients = [], []
    for step in range(2):
        whole = make_batch(method, size=_BATCH, seed=step)
        optimizer.zero_grad()
        for micro in range(accumulate):
            last = micro == accumulate - 1
            quiet = model if isinstance(model, DistributedDataParallel) and not last else None
            with quiet.no_sync() if quiet is not None else contextlib.nullcontext():
                loss: Tensor = model(_share(whole, micro, accumulate)).total
                (loss / accumulate).backward()
            losses.append(gather(loss.detach()[None]).mean().item())
        gradients.append({n: p.grad.clone() for n, p in method.named_parameters() if p.grad is not None})
        optimizer.step()
        method.after_step((step + 1) / 2)
    return {"losses": losses, "gradients": gradients, "state": method.state_dict()}


def _share(batch: Batch, micro: int, accumulate: int) -> Batch:
    """As `trainables.data.loader` deals a batch out: micro-batches first, workers within."""

    def mine(x: Tensor) -> Tensor:
        return x.reshape(accumulate, world_size(), -1, *x.shape[1:])[micro, rank()]

    return Batch([mine(view) for view in batch.views], mine(batch.labels), mine(batch.ids))


def two_workers_compute_what_one_does(name: str) -> None:
    """Losses, gradients and state of two steps, by two gloo processes on this machine and by this one."""
    one = train_share(name, {})
    module = load_method(name).__module__
    with tempfile.TemporaryDirectory() as folder:
        where = [str(path) for path in plugins.folders()]
        spawn: Any = mp.spawn  # type: ignore[attr-defined]  # exported, and not declared so
        spawn(_worker, args=(folder, name, module, where), nprocs=2)
        both = [torch.load(Path(folder) / f"{number}.pt", weights_only=True) for number in range(2)]
    for two in both:
        for part, (relative, absolute) in TOLERANCES.items():
            try:
                torch.testing.assert_close(two[part], one[part], rtol=relative, atol=absolute)
            except AssertionError as error:
                said = " ".join(str(error).split())
                hold(False, f"{part} of two workers are not those of one: {said}")


def _worker(number: int, folder: str, name: str, module: str, where: Sequence[str]) -> None:
    torch.set_num_threads(1)
    plugins.look_in(map(Path, where))
    plugins.load(module)  # of the method, which another process does not know yet
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=number, world_size=2)
    torch.save(train_share(name, {}), Path(folder) / f"{number}.pt")
    dist.destroy_process_group()


CHECKS = (Check("two workers compute what one does", two_workers_compute_what_one_does),)
