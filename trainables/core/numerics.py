"""Similarities in float32: what every contrastive or distillation loss stands on.

Under autocast a matrix product runs in half precision, and a temperature of 1e-4 turns the rounding of one
half-precision step into ten logits. Losses are therefore wrapped in `in_float32`.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import ParamSpec

import torch
import torch.nn.functional as F
from torch import Tensor

P = ParamSpec("P")


def in_float32(function: Callable[P, Tensor]) -> Callable[P, Tensor]:
    """`function` with autocast off and its floating-point tensor arguments in float32, or better."""

    @functools.wraps(function)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> Tensor:
        devices = {value.device.type for value in (*args, *kwargs.values()) if isinstance(value, Tensor)}
        device = devices.pop() if devices else "cpu"
        with torch.autocast(device, enabled=False):
            return function(
                *(_widen(value) for value in args),  # type: ignore[arg-type]
                **{name: _widen(value) for name, value in kwargs.items()},  # type: ignore[arg-type]
            )

    return wrapped


def at_least_float32(x: Tensor) -> Tensor:
    """Half precision widened; float32 and float64 as they are."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


@in_float32
def unit(x: Tensor) -> Tensor:
    """`u(x) = x / |x|_2` of each row: (B, D) -> (B, D), at least float32."""
    return F.normalize(x, dim=1)


def _widen(value: object) -> object:
    if isinstance(value, Tensor) and value.is_floating_point():
        return at_least_float32(value)
    return value
