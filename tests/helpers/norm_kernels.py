"""torch's CUDA kernels for synchronised batch normalisation, on the CPU, by what they are defined to compute.

With these a machine without a GPU can run the code that calls them. Shapes: x (B, C, ...), the rest (C).
"""

from __future__ import annotations

import torch
from torch import Tensor

_kept: list[torch.library.Library] = []  # an implementation lasts as long as its library


def define() -> None:
    """Make the kernels callable with tensors on the CPU, in this process."""
    if _kept:
        return
    library = torch.library.Library("aten", "IMPL")
    for kernel in (
        batch_norm_stats,
        batch_norm_gather_stats_with_counts,
        batch_norm_elemt,
        batch_norm_backward_reduce,
        batch_norm_backward_elemt,
    ):
        library.impl(kernel.__name__, kernel, "CPU")
    _kept.append(library)


def batch_norm_stats(x: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    variance, mean = torch.var_mean(x, _dims(x), correction=0)
    return mean, (variance + eps).rsqrt()


def batch_norm_gather_stats_with_counts(
    x: Tensor,
    mean: Tensor,
    invstd: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    momentum: float,
    eps: float,
    counts: Tensor,
) -> tuple[Tensor, Tensor]:
    share = (counts / counts.sum())[:, None]
    total = (share * mean).sum(0)
    variance = (share * (invstd**-2 - eps + (mean - total) ** 2)).sum(0)
    if running_mean is not None and running_var is not None:
        running_mean.lerp_(total, momentum)
        running_var.lerp_(variance * counts.sum() / (counts.sum() - 1), momentum)
    return total, (variance + eps).rsqrt()


def batch_norm_elemt(
    x: Tensor, weight: Tensor | None, bias: Tensor | None, mean: Tensor, invstd: Tensor, eps: float
) -> Tensor:
    out = (x - _along(mean, x)) * _along(invstd, x)
    return out if weight is None or bias is None else out * _along(weight, x) + _along(bias, x)


def batch_norm_backward_reduce(
    grad: Tensor, x: Tensor, mean: Tensor, invstd: Tensor, weight: Tensor | None, *wanted: bool
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    assert wanted == (True, weight is not None, weight is not None)
    sum_dy = grad.sum(_dims(x))
    sum_dy_xmu = (grad * (x - _along(mean, x))).sum(_dims(x))
    return sum_dy, sum_dy_xmu, sum_dy_xmu * invstd, sum_dy.clone()


def batch_norm_backward_elemt(
    grad: Tensor,
    x: Tensor,
    mean: Tensor,
    invstd: Tensor,
    weight: Tensor | None,
    sum_dy: Tensor,
    sum_dy_xmu: Tensor,
    count: Tensor,
) -> Tensor:
    assert count.dtype == torch.int32
    total = count.sum()
    slope = invstd if weight is None else invstd * weight
    hat = (x - _along(mean, x)) * _along(invstd**2 * sum_dy_xmu / total, x)
    return (grad - _along(sum_dy / total, x) - hat) * _along(slope, x)


def _dims(x: Tensor) -> list[int]:
    return [d for d in range(x.dim()) if d != 1]


def _along(channels: Tensor, x: Tensor) -> Tensor:
    return channels.view(1, -1, *[1] * (x.dim() - 2))
