"""Two gloo processes on this machine, run once for all tests that compare them with one process.

`together()` is what each of the two computed, `alone()` the same computation by one process with all samples.
"""

from __future__ import annotations

import functools
import tempfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import norm_kernels
import numpy as np
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from small_methods import make_teacher
from timm.layers.norm_act import BatchNormAct2d
from torch import Tensor, nn

from trainables.core.distributed import (
    convert_sync_batch_norm,
    gather,
    gather_with_gradient,
    rank,
    shuffled,
    world_size,
)
from trainables.data.encode import encode_together
from trainables.data.store_images import Images
from trainables.methods import methods
from trainables.methods.parts.classifier import cross_entropy
from trainables.methods.parts.momentum_encoder import keys_of
from trainables.methods.parts.queue import Queue
from trainables.planning.conformance.workers import train_share

# name -> method, config, teacher's batch norm, micro-batches a step
CASES: dict[str, tuple[str, dict[str, Any], str, int]] = {
    **{name: (name, {}, "eval", 1) for name in methods()},
    "moco accumulated": ("moco", {}, "eval", 2),
    "moco spare": ("moco", {}, "eval", 1),
    "moco spare, accumulated": ("moco", {}, "eval", 2),
    "retro code": ("retro", {"fidelity": "code", "consistency_weight": 4.0}, "batch", 1),
    "retro mbconv, head tuned": ("retro", {"adapter": "mbconv", "head": "tuned"}, "eval", 2),
    # 32 times the consistency, and lr .1: a weight that keeps roundings what they are elsewhere.
    "disco accumulated": ("disco", {"fidelity": "code", "consistency_weight": 0.1}, "eval", 2),
    "seed accumulated": ("seed", {}, "eval", 2),
    # Warmer than the paper's .04, which makes a rounding of a similarity 25 times as large in the loss.
    "compress": ("compress", {"temperature": 0.2}, "eval", 2),
    "compress 1q": ("compress", {"temperature": 0.2, "variant": "1q"}, "batch", 1),
    # The paper's alpha of 4 makes four times as much of a rounding.
    "queue_pseudo_labels accumulated": ("queue_pseudo_labels", {"temperature": 0.5}, "eval", 2),
    "queue_pseudo_labels of views": (
        "queue_pseudo_labels",
        {"mixup_alpha": 0.0, "include_batch": False, "temperature": 0.5},
        "batch",
        1,
    ),
    "patch_regression accumulated": ("patch_regression", {"normalise": "unit", "grid": "smaller"}, "eval", 2),
    "projector corr_logsum": ("projector", {"loss": "corr_logsum", "alpha": 1.0}, "eval", 2),
    "projector with labels": (
        "projector",
        {"normalisation": "l2", "alpha": 2.0, "ce_weight": 1.0, "kl_weight": 1.0},
        "batch",
        1,
    ),
    "rrkd labels": (
        "rrkd",
        {"ce_weight": 1.0, "distillation_weight": 2.0, "matching": "soft_ce", "temperature": 0.2},
        "eval",
        2,
    ),
    "rrkd centre": ("rrkd", {"centre": True}, "batch", 1),
    "rrkd random": ("rrkd", {"anchors": "random"}, "eval", 2),  # 9 anchors: 5 for one worker, 4 for the other
    "rrkd best": ("rrkd", {"anchors": "best_per_class"}, "batch", 1),
    "rrkd queue": ("rrkd", {"anchors": "queue"}, "eval", 2),
}


def train(case: str) -> dict[str, Any]:
    """Two optimizer steps as the loop makes them; this worker's view of the result."""
    name, config, batch_norm, accumulate = CASES[case]
    # A parameter that no pass uses, as some architectures have.
    return train_share(name, config, batch_norm, accumulate, spare="spare" in case)


def normalise(kind: str, by_kernels: bool = False) -> dict[str, Any]:
    """A batch norm of each kind on unevenly distributed samples: output, gradients, running statistics.

    `by_kernels`: as on a GPU.
    """
    torch.manual_seed(0)
    layers: dict[str, nn.Module] = {
        "1d": nn.BatchNorm1d(3),
        "2d": nn.BatchNorm2d(3, momentum=None),
        "plain": nn.BatchNorm2d(3, affine=False),
        "act": BatchNormAct2d(3, act_layer=nn.SiLU),
        "untracked": nn.BatchNorm2d(3, track_running_stats=False),
    }
    layer = layers[kind]
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.add_(torch.rand(parameter.shape))
    shape = (6, 3) if kind == "1d" else (6, 3, 4, 5)
    # A mean far from 0, where the mean of squares minus the squared mean would lose its digits.
    x = (torch.randn(shape) * torch.tensor([1.0, 0.1, 3.0]).view(1, 3, *[1] * (len(shape) - 2)) + 40).double()
    weight = torch.randn(shape).double()
    layer = convert_sync_batch_norm(layer.double())
    if by_kernels and world_size() > 1:
        norm_kernels.define()
        layer.on_gpu = lambda x: True  # type: ignore[assignment]
    share = 6 // world_size()
    own = slice(rank() * share, (rank() + 1) * share)
    outs, grads = [], []
    for step in range(2):
        piece = (x[own] * (step + 1)).requires_grad_()
        out = layer(piece)
        (out * weight[own]).sum().backward()
        outs.append(gather(out.detach()))
        grads.append(gather(piece.grad))
    sums = {name: gather(p.grad[None]).sum(0) for name, p in layer.named_parameters()}
    return {"outs": outs, "grads": grads, "sums": sums, "state": layer.state_dict()}


def shuffle() -> dict[str, Any]:
    """Shuffle-BN of 8 numbered samples, with an encoder that leaves a mark of the company they had."""
    numbers = torch.arange(8.0).view(8, 1)
    share = 8 // world_size()
    mine = numbers[rank() * share : (rank() + 1) * share]
    company: list[Tensor] = []

    def encode(x: Tensor) -> Tensor:
        company.append(x.flatten())
        return torch.cat([x, x - x.mean()], 1)

    keys = gather(shuffled(encode, mine, seed=1))
    queue = Queue(4, 2)
    local, again = company[0], [keys_of(encode, nn.BatchNorm1d(1), mine, queue, 0) for _ in range(2)]
    queue.hold(torch.randn(8 // world_size(), 2))
    queue.advance()
    keys_of(encode, nn.BatchNorm1d(1), mine, queue, 0)
    without = keys_of(encode, nn.Linear(1, 1), mine, queue, 0)
    return {
        "keys": keys,
        "company": gather(local[None]),
        "same step": torch.equal(*again),
        "orders": company[1:4],
        "not dealt": (company[4], mine.flatten()),
        "without": without,
    }


def relate() -> dict[str, Any]:
    """A loss over the relations of 4 samples, and cross-entropy where the first worker lacks a label."""
    weight = nn.Parameter(torch.tensor([[1.0, -2.0], [0.5, 3.0]]))
    x = torch.tensor([[1.0, 2.0], [3.0, -1.0], [0.0, 1.0], [2.0, 2.0]])
    labels = torch.tensor([0, -1, 1, 1])
    mine = slice(rank() * 4 // world_size(), (rank() + 1) * 4 // world_size())
    z = gather_with_gradient(x[mine] @ weight)
    gram = (z @ z.T).square().mean()
    (relations,) = torch.autograd.grad(gram, weight)
    loss = cross_entropy(x[mine] @ weight, labels[mine])
    (classes,) = torch.autograd.grad(loss, weight)
    # What DDP and the loop's log make of each: the mean over workers.
    return {
        name: gather(value[None]).mean(0)
        for name, value in {
            "gram": gram.detach(),
            "d gram": relations,
            "cross-entropy": loss.detach(),
            "d cross-entropy": classes,
        }.items()
    }


def features() -> dict[str, Any]:
    """Features of 700 images, three batches, by a teacher with the statistics of a batch."""
    pixels = torch.randint(0, 256, (700, 3, 16, 16), dtype=torch.uint8, generator=torch.Generator())
    images = cast(Images, SimpleNamespace(take=lambda ids: pixels[ids], advise=lambda ids: None, aspect=None))
    teacher = make_teacher("batch")
    convert_sync_batch_norm(teacher)  # as in a run; here each batch must have its own statistics
    sizes: list[int] = []

    def encode(views: Tensor) -> Tensor:
        sizes.append(len(views))
        return teacher.features(views)

    def damaged(views: Tensor) -> Tensor:
        if rank() == world_size() - 1:
            raise ValueError("no such image")
        return teacher.features(views)

    where = torch.device("cpu")
    found = encode_together(encode, images, np.arange(700), 16, where)
    few = encode_together(encode, images, np.arange(3), 16, where)
    none = encode_together(encode, images, np.arange(0), 16, where)
    try:
        encode_together(damaged, images, np.arange(700), 16, where)
        error = ""
    except ValueError as found_error:
        error = str(found_error)
    return {"all": found, "few": few, "none": none, "sizes": sizes, "error": error}


def everything() -> dict[str, Any]:
    return {
        "train": {case: train(case) for case in CASES},
        "normalise": {kind: normalise(kind) for kind in ("1d", "2d", "plain", "act", "untracked")},
        "by kernels": {kind: normalise(kind, True) for kind in ("1d", "2d", "plain", "act", "untracked")},
        "shuffle": shuffle(),
        "relate": relate(),
        "features": features(),
        "gather": gather(torch.full((2, 1), float(rank()))),
    }


@functools.cache
def alone() -> dict[str, Any]:
    return everything()


@functools.cache
def together() -> list[dict[str, Any]]:
    with tempfile.TemporaryDirectory() as folder:
        mp.spawn(_worker, args=(folder,), nprocs=2)
        return [torch.load(Path(folder) / f"{number}.pt", weights_only=True) for number in range(2)]


def _worker(number: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=number, world_size=2)
    torch.save(everything(), Path(folder) / f"{number}.pt")
    dist.destroy_process_group()
