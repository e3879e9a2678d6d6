"""Twins: architectures with the same names and shapes of weights that compute different functions.

A checkpoint's weights cannot tell them apart. `tf_efficientnet_b0` pads images otherwise than
`efficientnet_b0`; `resnetblur50` blurs before it downsamples. To find twins, every architecture of timm is
built on torch's meta device, which allocates no memory. Building stops at the first parameter that the given
architecture lacks, so all of timm takes one or two seconds.
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
# Modules that do nothing in eval mode.
_IDLE = (nn.Identity, nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout)
# Attributes that change no output in eval mode, besides those with `drop` in their name.
_SILENT = frozenset((
    "training", "inplace", "num_classes", "grad_checkpointing", "fused_attn", "init_std",
    "weight_init", "scriptable", "momentum",
))  # fmt: skip


class _Another(Exception):
    """Raised at the first parameter that the architecture to compare with lacks."""


@functools.lru_cache(maxsize=64)
def twins(arch: str) -> tuple[str, ...]:
    """timm's architectures with the weights' names and shapes of `arch` but another function.

    Empty if `arch` is not timm's. Classifiers are ignored.
    """
    if not timm.is_model(arch):
        return ()
    return tuple(name for name in timm.list_models() if are_twins(arch, name))


def are_twins(arch: str, other: str) -> bool:
    """Whether both have weights of the same names and shapes and compute different functions.

    False if either is not timm's.
    """
    arch, other = arch.partition(".")[0], other.partition(".")[0]  # tags name weights
    if arch == other or not (timm.is_model(arch) and timm.is_model(other)):
        return False
    one = _known(arch)
    left = one.sizes.copy()

    def fits(shape: tuple[int, ...]) -> bool:
        left[shape] -= 1
        return left[shape] >= 0

    model = built_while(other, fits)
    if model is None or shapes_of(model.state_dict()) != one.shapes:
        return False
    return _function(model) != one.function


class _Network(NamedTuple):
    """The features by which architectures are compared."""

    sizes: Counter[tuple[int, ...]]  # shape -> number of parameters with it
    shapes: Shapes
    function: list[tuple[str, str, str, str]]


@functools.lru_cache(maxsize=8)
def _known(arch: str) -> _Network:
    sizes: Counter[tuple[int, ...]] = Counter()
    with _watching(lambda shape: sizes.update([shape])):
        model = built(arch)
    return _Network(sizes, shapes_of(model.state_dict()), _function(model))


def built_while(arch: str, fits: Callable[[tuple[int, ...]], bool]) -> nn.Module | None:
    """Build `arch` on the meta device, without classifier; stop and return None at a shape that does not fit.

    None also for an architecture that cannot be built from its name alone.
    """

    def check(shape: tuple[int, ...]) -> None:
        if not fits(shape):
            raise _Another

    try:
        with _watching(check):
            return built(arch)
    except Exception:  # _Another, or any error of an architecture that needs more than its name
        return None


@contextmanager
def _watching(see: Callable[[tuple[int, ...]], None]) -> Iterator[None]:
    """Call `see` with the shape of every parameter that this thread registers in a module."""
    thread = threading.get_ident()

    def hooked(_module: nn.Module, _name: str, parameter: Tensor | None) -> None:
        if parameter is not None and threading.get_ident() == thread:
            see(tuple(parameter.shape))

    hook = register_module_parameter_registration_hook(hooked)
    try:
        yield
    finally:
        hook.remove()


def built(arch: str, **options: Any) -> nn.Module:
    """timm's `arch` on the meta device, without classifier."""
    with torch.device("meta"):
        model: nn.Module = timm.create_model(arch, pretrained=False, num_classes=0, **options)
    return model


def shapes_of(tensors: Mapping[str, Tensor]) -> Shapes:
    """Name -> shape."""
    return {name: tuple(tensor.shape) for name, tensor in tensors.items()}


def _function(model: nn.Module) -> list[tuple[str, str, str, str]]:
    """Name, type and settings of a network's modules. They differ between twins."""
    return [
        (name, type(module).__name__, module.extra_repr(), _settings(module))
        for name, module in model.named_modules()
        if not isinstance(module, _IDLE) and type(module).__name__ != "DropPath"
    ]


def _settings(module: nn.Module) -> str:
    """A module's plain attributes, such as numbers of heads, kinds of pooling and names of functions."""
    plain: dict[str, Any] = {}
    for name, value in vars(module).items():
        if name.startswith("_") or name in _SILENT or "drop" in name or name.endswith("_cfg"):
            continue
        if callable(value) and hasattr(value, "__name__"):
            value = value.__name__
        if isinstance(value, bool | int | float | str | tuple):
            plain[name] = value
    return str(sorted(plain.items()))
