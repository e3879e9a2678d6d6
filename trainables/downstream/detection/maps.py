"""A network as the backbone of a detector: the maps of its stages, and where it can be split.

Images reach it as views do, normalised by ImageNet's mean and deviation; `Feed` makes of them what its
weights were trained with.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from trainables.core.errors import UserError, first_line
from trainables.networks.backbones import Backbone, evaluating
from trainables.networks.feed import Feed
from trainables.networks.zoo import Stage, as_map, watched

_TRIED = (96, 160)  # height and width of the images that a network is tried with


class StageMaps(nn.Module):
    """(B, 3, H, W) -> the maps (B, C, h, w) of `stages`, from shallow to deep.

    Nothing behind the last of them is computed. `out` are their channels, `strides` how many pixels one
    position stands for.
    """

    def __init__(self, network: Backbone, stages: Sequence[Stage], strides: Sequence[int]) -> None:
        super().__init__()
        self.model = network.model
        # Images come at the detector's own size.
        self.feed = Feed(network.inputs._replace(image_size=None), network.in_chans)
        self.stages, self.strides = tuple(stages), tuple(strides)

    @property
    def out(self) -> list[int]:
        """Channels of each map."""
        return [stage.channels for stage in self.stages]

    def forward(self, images: Tensor) -> list[Tensor]:
        """The maps. The sides of images must be multiples of the last stride."""
        return _maps(self.model, self.feed(images), self.stages)


class _Reached(Exception):
    """The last map that is asked for is there."""


@contextlib.contextmanager
def _ends_at(module: nn.Module) -> Iterator[None]:
    """Inside, a pass ends when `module` has given its output, and the block with it."""

    def stop(*_: Any) -> None:
        raise _Reached

    hook = module.register_forward_hook(stop)
    try:
        with contextlib.suppress(_Reached):
            yield
    finally:
        hook.remove()


def _maps(model: nn.Module, images: Tensor, stages: Sequence[Stage]) -> list[Tensor]:
    """The maps of `stages`; fewer where an output is no map."""
    with (
        watched(model, [stage.module for stage in stages]) as seen,
        _ends_at(model.get_submodule(stages[-1].module)),
    ):
        model(images)
    maps = [as_map(model, seen[stage.module], stage.channels) for stage in stages]
    return [one for one in maps if one is not None]


def stage_maps(network: Backbone) -> StageMaps:
    """The maps of all stages of a network whose maps shrink by 2 from stage to stage.

    Raises `UserError` at the network's `arch` for one without such maps, and for one that takes images of one
    size only, such as a plain vision transformer.
    """
    field = f"{network.field}.arch"
    expected = "a convolutional network whose maps shrink from stage to stage"
    if not network.stages:
        problem = "has no feature maps for a detector"
        raise UserError(field, problem, value=network.arch, expected=expected)
    height, width = _TRIED
    images = torch.zeros(1, network.in_chans, height, width, device=next(network.parameters()).device)
    try:
        with evaluating(network.model), torch.no_grad():
            maps = _maps(network.model, images, network.stages)
    except Exception as error:
        problem = f"takes images of one size only, and a detector shows it all ({first_line(error)})"
        raise UserError(field, problem, value=network.arch, expected=expected) from None
    strides = [height // one.shape[2] for one in maps]
    shrinking = len(maps) == len(network.stages) and all(
        stride * one.shape[3] == width and stride * one.shape[2] == height
        for stride, one in zip(strides, maps, strict=True)
    )
    if not shrinking or len(maps) < 2 or len(set(strides)) < len(strides):
        sides = " and ".join(f"{one.shape[2]} x {one.shape[3]}" for one in maps)
        problem = f"has maps of {sides or 'no'} positions for {height} x {width} pixels, no pyramid"
        raise UserError(field, problem, value=network.arch, expected=expected)
    return StageMaps(network, network.stages, strides)


def for_pyramid(maps: StageMaps, network: Backbone) -> StageMaps:
    """Of the stages those with strides of at least 4: larger maps cost most and tell least.

    Raises `UserError` where strides do not double, which a pyramid needs.
    """
    kept = [at for at, stride in enumerate(maps.strides) if stride >= 4] or [len(maps.strides) - 1]
    strides = [maps.strides[at] for at in kept]
    if any(after != 2 * before for before, after in pairwise(strides)):
        problem = f"has strides of {', '.join(map(str, strides))}, and those of a pyramid double"
        raise UserError(f"{network.field}.arch", problem, value=network.arch, expected="`neck: c4`")
    return StageMaps(network, [maps.stages[at] for at in kept], strides)


def split(maps: StageMaps, network: Backbone) -> tuple[StageMaps, nn.Sequential]:
    """(the maps of the stage before the last one, what makes the last map of them), for C4.

    The second part are the modules between both stages, side by side in the network; they stay its own.
    Raises `UserError` at the network's `arch` where these, one after the other, do not compute the last map.
    """
    before, last = maps.stages[-2:]
    tail = _between(network.model, before.module, last.module)
    height, width = _TRIED
    images = torch.rand(1, network.in_chans, height, width, generator=torch.Generator().manual_seed(0))
    same = False
    if tail is not None:
        with evaluating(network.model), torch.no_grad():
            found = _maps(network.model, images.to(next(network.parameters()).device), (before, last))
            try:
                same = torch.allclose(tail(found[0]), found[1], rtol=1e-4, atol=1e-5)
            except Exception:  # modules that take something else than one map
                same = False
    if tail is None or not same:
        problem = "cannot be split before its last stage, which c4 runs on each region"
        expected = "`neck: fpn`, or a ResNet, MobileNet, EfficientNet, RegNet or ConvNeXt"
        raise UserError(f"{network.field}.arch", problem, value=network.arch, expected=expected)
    return StageMaps(network, [before], [maps.strides[-2]]), tail


def _between(model: nn.Module, before: str, last: str) -> nn.Sequential | None:
    """The modules behind `before` up to `last`; None where they do not stand side by side."""
    parent, _, first = before.rpartition(".")
    other, _, end = last.rpartition(".")
    if parent != other:
        return None
    children = list(model.get_submodule(parent).named_children())
    names = [name for name, _ in children]
    between = children[names.index(first) + 1 : names.index(end) + 1]
    return nn.Sequential(*(module for _, module in between))


def weights_of(model: nn.Module, stages: Sequence[Stage], count: int, images: Tensor) -> set[str]:
    """Names of the parameters that the map of stage number `count` (from 1) depends on; of 0 none."""
    if not count:
        return set()
    wanted = {name: p for name, p in model.named_parameters() if p.requires_grad}
    with evaluating(model), torch.enable_grad():
        found = _maps(model, images, [stages[count - 1]])[0]
        grads = torch.autograd.grad(found.sum(), list(wanted.values()), allow_unused=True)
    return {name for name, grad in zip(wanted, grads, strict=True) if grad is not None}
