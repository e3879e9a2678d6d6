"""Architectures that no checkpoint tells apart: weights of the same names and shapes, another function.

`tf_efficientnet_b0` pads images otherwise than `efficientnet_b0`, `resnetblur50` blurs before it shrinks, and
the weights of the one fit the other to the last number. They are found among all of timm's by building each
on torch's meta device, which allocates nothing, and giving up at the first parameter that the one asked for
has not: one or two seconds for all.
"""

from __future__ import annotations

import functools
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple

import timm
import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_parameter_registration_hook

Shapes = Mapping[str, tuple[int, ...]]
# Modules that do nothing while a network is evaluated.
_IDLE = (nn.Identity, nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout)
# Attributes that change no output of a network that is evaluated, beside those with `drop` in their name.
_SILENT = frozenset((
    "training", "inplace", "num_classes", "grad_checkpointing", "fused_attn", "init_std",
    "weight_init", "scriptable", "momentum",
))  # fmt: skip


class _Another(Exception):
    """A parameter that the architecture asked for has not."""


@functools.lru_cache(maxsize=64)
def twins(arch: str) -> tuple[str, ...]:
    """Other architectures of timm with the names and shapes of `arch`'s weights that compute otherwise.

    Empty for what is not timm's. Classifiers do not count.
    """
    if not timm.is_model(arch):
        return ()
    return tuple(name for name in timm.list_models() if are_twins(arch, name))


def are_twins(arch: str, other: str) -> bool:
    """Have both the same names and shapes of weights, and compute otherwise? False for what is not timm's."""
    arch, other = arch.partition(".")[0], other.partition(".")[0]  # tags name weights
    if arch == other or not (timm.is_model(arch) and timm.is_model(other)):
        return False
    one = _known(arch)
    left = one.sizes.copy()

    def fits(shape: tuple[int, ...]) -> bool:
        left[shape] -= 1
        return left[shape] >= 0

    built = built_while(other, fits)
    return built is not None and _shapes(built) == one.shapes and _function(built) != one.function


class _Network(NamedTuple):
    """What an architecture is known by."""

    sizes: Counter[tuple[int, ...]]  # how many parameters were made of each shape
    shapes: Shapes
    function: list[tuple[str, str, str, str]]


@functools.lru_cache(maxsize=8)
def _known(arch: str) -> _Network:
    sizes: Counter[tuple[int, ...]] = Counter()
    with _watching(lambda shape: sizes.update([shape])):
        model = _built(arch)
    return _Network(sizes, _shapes(model), _function(model))


def built_while(arch: str, fits: Callable[[tuple[int, ...]], bool]) -> nn.Module | None:
    """The architecture on the meta device, without classifier; None where a parameter's shape does not fit.

    Gives up at the first such parameter.
    """

    def check(shape: tuple[int, ...]) -> None:
        if not fits(shape):
            raise _Another

    try:
        with _watching(check):
            return _built(arch)
    except Exception:  # of another shape, or one that cannot be built by its name alone
        return None


@contextmanager
def _watching(see: Callable[[tuple[int, ...]], None]) -> Iterator[None]:
    """Inside, `see` is told the shape of every parameter that this thread gives to a module."""
    thread = threading.get_ident()

    def told(_module: nn.Module, _name: str, parameter: Tensor | None) -> None:
        if parameter is not None and threading.get_ident() == thread:
            see(tuple(parameter.shape))

    hook = register_module_parameter_registration_hook(told)
    try:
        yield
    finally:
        hook.remove()


def _built(arch: str) -> nn.Module:
    with torch.device("meta"):
        model: nn.Module = timm.create_model(arch, pretrained=False, num_classes=0)
    return model


def _shapes(model: nn.Module) -> Shapes:
    return {name: tuple(value.shape) for name, value in model.state_dict().items()}


def _function(model: nn.Module) -> list[tuple[str, str, str, str]]:
    """What tells a network from another with the same weights: its modules and their settings."""
    return [
        (name, type(module).__name__, module.extra_repr(), _settings(module))
        for name, module in model.named_modules()
        if not isinstance(module, _IDLE) and type(module).__name__ != "DropPath"
    ]


def _settings(module: nn.Module) -> str:
    """A module's plain attributes: numbers of attention heads, ways of pooling, names of functions."""
    plain: dict[str, Any] = {}
    for name, value in vars(module).items():
        if name.startswith("_") or name in _SILENT or "drop" in name or name.endswith("_cfg"):
            continue
        if callable(value) and hasattr(value, "__name__"):
            value = value.__name__
        if isinstance(value, bool | int | float | str | tuple):
            plain[name] = value
    return str(sorted(plain.items()))
