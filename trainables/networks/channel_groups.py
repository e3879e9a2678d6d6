"""Groups of layers that share their channels, and the L1 norm of each channel's filters.

Layers that meet in a sum, a product or a depthwise convolution (the ends of residual branches, gates) share
one order of channels: a permutation keeps the function only if it is applied to all of them.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

from trainables.core.errors import UserError
from trainables.networks.backbones import Backbone, evaluating

_LAYERS = (nn.Conv2d, nn.Linear, _BatchNorm)


def largest_first(student: Backbone, whole: Mapping[str, Tensor], images: Tensor) -> dict[str, Tensor]:
    """The parameters `whole` with channels in descending order of the L1 norm of the filters that write them.

    `whole` are the parameters of a network like the student's, of any width. Layers that share channels share
    the order, by the sum of their norms, so the network computes the same function. The published code
    (`mengjian0502/solo-learn-sparse`) ranks each convolution alone; no narrower network can be cut out then.
    Raises `UserError` for grouped convolutions, whose groups would have to be ordered as a whole.
    """
    ends = channel_ends(student.model, images)
    modules = {name: module for name, module in student.model.named_modules() if name in ends}
    norms: dict[int, Tensor] = {}
    for name, module in modules.items():
        if isinstance(module, _BatchNorm):
            continue
        if isinstance(module, nn.Conv2d) and module.groups not in (1, module.out_channels):
            raise _cannot_rank(student, f"{name} is a convolution of {module.groups} groups")
        group = ends[name][1]
        norm = whole[f"{name}.weight"].abs().flatten(1).sum(1)
        if group in norms and len(norms[group]) != len(norm):
            raise _cannot_rank(student, f"{name} shares channels with a layer of another width")
        norms[group] = norms[group] + norm if group in norms else norm
    orders = {group: norm.argsort(descending=True, stable=True) for group, norm in norms.items()}
    ordered = {}
    for full_name, parameter in whole.items():
        name, _, kind = full_name.rpartition(".")
        before, after = ends[name]
        parameter = parameter[orders[after]]
        dense = kind == "weight" and parameter.ndim > 1 and getattr(modules[name], "groups", 1) == 1
        if dense and before is not None:
            if parameter.shape[1] != len(orders[before]):
                raise _cannot_rank(student, f"{name} reads something else than channels")
            parameter = parameter[:, orders[before]]
        ordered[full_name] = parameter
    return ordered


def _cannot_rank(student: Backbone, why: str) -> UserError:
    return UserError(
        "config.slice",
        f"the filters of {student.arch} cannot be ranked: {why}",
        value="l1_mask",
        expected="'index', or another student",
    )


def inputs_seen(model: nn.Module, images: Tensor) -> dict[str, Tensor]:
    """Layer name -> its input, for each convolution, linear layer and batch norm, on a pass of `images`."""
    seen: dict[str, Tensor] = {}

    def keep(name: str, _module: nn.Module, given: tuple[Tensor, ...]) -> None:
        seen[name] = given[0]

    _pass(model, images, keep, None)
    return seen


def channel_ends(model: nn.Module, images: Tensor) -> dict[str, tuple[int | None, int]]:
    """Layer -> (the group of channels it reads, the one it writes); None for the image's own channels."""
    groups = _Groups()
    ends: dict[str, tuple[int | None, int]] = {}

    def before(name: str, _module: nn.Module, given: tuple[Tensor, ...]) -> None:
        ends[name] = (groups.of(given[0]), -1)

    def after(name: str, module: nn.Module, _given: Any, out: Tensor) -> None:
        reads, _ = ends[name]
        keeps = isinstance(module, _BatchNorm) or getattr(module, "groups", 1) > 1
        writes = reads if keeps and reads is not None else groups.new()
        groups.put(out, writes)
        ends[name] = (reads, writes)

    with groups:
        _pass(model, images, before, after)
    return {
        name: (None if reads is None else groups.root(reads), groups.root(writes))
        for name, (reads, writes) in ends.items()
    }


@torch.no_grad()
def _pass(
    model: nn.Module, images: Tensor, before: Callable[..., None], after: Callable[..., None] | None
) -> None:
    """Pass `images` through in eval mode with hooks on the layers; a hook's first argument is the name."""
    hooks = []
    for name, module in model.named_modules():
        if isinstance(module, _LAYERS):
            hooks.append(module.register_forward_pre_hook(functools.partial(before, name)))
            if after is not None:
                hooks.append(module.register_forward_hook(functools.partial(after, name)))
    try:
        with evaluating(model):
            model(images)
    finally:
        for hook in hooks:
            hook.remove()


class _Groups(TorchFunctionMode):
    """Tracks groups of channels through every operation; operands of one operation join their groups."""

    def __init__(self) -> None:
        super().__init__()
        self._parents: list[int] = []
        # By id. The tensor is kept, so that its id is not reused.
        self._known: dict[int, tuple[Tensor, int]] = {}

    def new(self) -> int:
        self._parents.append(len(self._parents))
        return self._parents[-1]

    def root(self, group: int) -> int:
        while self._parents[group] != group:
            group = self._parents[group]
        return group

    def of(self, tensor: Tensor) -> int | None:
        return self._known[id(tensor)][1] if id(tensor) in self._known else None

    def put(self, tensor: Tensor, group: int) -> None:
        self._known[id(tensor)] = (tensor, group)

    def __torch_function__(
        self, func: Any, types: Any, args: Iterable[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        given = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        met = [group for tensor in given if (group := self.of(tensor)) is not None]
        for other in met[1:]:
            self._parents[self.root(other)] = self.root(met[0])
        for tensor in tree_leaves(out) if met else ():
            if isinstance(tensor, Tensor):
                self.put(tensor, met[0])
        return out
