"""Optimizer and schedule of a trial, from timm, and what can be known to be wrong with them beforehand."""

from __future__ import annotations

import inspect
from typing import Any

import torch
from timm.optim import create_optimizer_v2, get_optimizer_class, list_optimizers
from timm.scheduler import create_scheduler_v2
from torch import nn

from trainables.core.errors import UserError
from trainables.methods.base import Method
from trainables.spec.trial import OptimSpec

TRUSTING = ("larc", "lars", "nlarc", "nlars")  # optimizers that scale a layer's step by |w| / |gradient|


def check_optim(spec: OptimSpec, epochs: int, train_images: int, workers: int) -> None:
    """Raise `UserError` for settings that cannot train `train_images` images on `workers` workers."""
    known = [str(name) for name in list_optimizers()]
    if spec.trust_coefficient is not None and spec.optimizer not in TRUSTING:
        raise UserError(
            "optim.trust_coefficient",
            f"optimizer {spec.optimizer!r} has none",
            value=spec.trust_coefficient,
            expected=f"`optimizer` to be one of {', '.join(TRUSTING)}, or no trust_coefficient",
        )
    if spec.optimizer not in known:
        raise UserError("optim.optimizer", "no such optimizer", value=spec.optimizer, choices=known)
    try:
        trial = make_optimizer(nn.Linear(2, 2), spec)
    except Exception as error:  # packages that are not installed, arguments we do not pass
        raise UserError("optim.optimizer", f"cannot be used here: {error}", value=spec.optimizer) from None
    if getattr(trial, "is_second_order", False):
        raise UserError("optim.optimizer", "needs second derivatives", value=spec.optimizer)
    share = spec.accumulate * workers
    if spec.batch_size % share or spec.batch_size // share < 2:
        raise UserError(
            "optim.batch_size",
            f"cannot be split over {workers} workers x {spec.accumulate} micro-batches",
            value=spec.batch_size,
            expected=f"a multiple of {share}, with at least 2 images in each part",
        )
    if spec.batch_size > train_images:
        raise UserError(
            "optim.batch_size",
            f"is larger than the {train_images} images to train on",
            value=spec.batch_size,
            expected=f"at most {train_images}",
        )
    if spec.min_lr > spec.lr:
        raise UserError("optim.min_lr", f"is above lr {spec.lr}", value=spec.min_lr)
    if spec.warmup_epochs >= epochs and spec.warmup_epochs:
        raise UserError("optim.warmup_epochs", f"leave nothing of {epochs} epochs", value=spec.warmup_epochs)
    decays = list(spec.decay_epochs)
    if spec.schedule == "step" and len(decays) != 1:
        raise UserError("optim.decay_epochs", "`step` decays every N epochs", value=decays, expected="[N]")
    if spec.schedule == "multistep" and (not decays or decays != sorted(set(decays))):
        raise UserError("optim.decay_epochs", "`multistep` needs epochs, rising", value=decays)
    if any(epoch < 1 for epoch in decays):
        raise UserError("optim.decay_epochs", "epochs count from 1", value=decays)


def make_optimizer(module: nn.Module, spec: OptimSpec) -> torch.optim.Optimizer:
    """Over the parameters of `module` that have gradients; biases and norms decay only with `decay_norms`.

    A method may have groups of its own (`Method.parameter_groups`). timm's `sgd` is Nesterov's; the papers'
    plain momentum is called `momentum`.
    """
    options: dict[str, Any] = {}
    if spec.trust_coefficient is not None:
        options["trust_coeff"] = spec.trust_coefficient
    if next(module.parameters()).is_cuda and _can_fuse(spec.optimizer):
        options["fused"] = True
    groups = module.parameter_groups(spec) if isinstance(module, Method) else None
    optimizer: torch.optim.Optimizer = create_optimizer_v2(
        module if groups is None else groups,
        spec.optimizer,
        lr=spec.lr,
        weight_decay=spec.weight_decay,
        momentum=spec.sgd_momentum,
        filter_bias_and_bn=not spec.decay_norms,
        **options,
    )
    return optimizer


def load_optimizer(optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> None:
    """Restore a `state_dict`, which may be from another kind of device; each has its own implementation."""
    groups = [
        {**saved, **{name: own[name] for name in ("fused", "foreach") if name in own}}
        for saved, own in zip(state["param_groups"], optimizer.param_groups, strict=True)
    ]
    optimizer.load_state_dict({**state, "param_groups": groups})


def _can_fuse(name: str) -> bool:
    """Whether an optimizer is one of torch's that make a step in one kernel."""
    kind = get_optimizer_class(name, bind_defaults=False)
    return kind.__module__.startswith("torch.") and "fused" in inspect.signature(kind).parameters


class Schedule:
    """The learning rate of each update: timm's schedules, counted in updates throughout."""

    def __init__(self, optimizer: torch.optim.Optimizer, spec: OptimSpec, epochs: int, updates: int) -> None:
        """`updates` an epoch."""
        warmup = spec.warmup_epochs * updates
        name: str = spec.schedule
        options: dict[str, Any] = {}
        counted = epochs * updates
        if name == "cosine_after_warmup":
            name, counted, options["warmup_prefix"] = "cosine", counted - warmup, True
        elif name == "step":
            options["decay_epochs"] = spec.decay_epochs[0] * updates
        elif name == "multistep":
            # timm applies a milestone one count early.
            options["decay_milestones"] = [epoch * updates + 1 for epoch in spec.decay_epochs]
        elif name == "constant":  # newer timm has one of its own; this serves every version
            name, options["decay_epochs"] = "step", counted + 1
        self._optimizer = optimizer
        self.scheduler, _ = create_scheduler_v2(
            optimizer,
            name,
            num_epochs=counted,
            min_lr=spec.min_lr,
            decay_rate=spec.decay_rate,
            warmup_epochs=warmup,
            warmup_lr=spec.lr / max(1, warmup),
            **options,
        )

    def set(self, update: int) -> None:
        """Set the learning rate that update number `update` (from 0, over all epochs) uses."""
        self.scheduler.step(update)

    @property
    def lr(self) -> float:
        """The learning rate now."""
        return float(self._optimizer.param_groups[0]["lr"])

    def state_dict(self) -> dict[str, Any]:
        """The state of timm's scheduler, for a checkpoint."""
        state: dict[str, Any] = self.scheduler.state_dict()
        return state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        self.scheduler.load_state_dict(state)
