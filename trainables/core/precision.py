"""How exactly float32 is computed: all 24 bits, or TF32 and other shortcuts of a device.

torch has two interfaces for this. The older one (`allow_tf32`, `set_float32_matmul_precision`) does not reset
what was set through the newer one (`fp32_precision`, torch >= 2.9), and torch refuses to answer the older one
where the two disagree. So both are set.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch

_EXACT = "ieee"


class Precision(NamedTuple):
    """The settings of this process; None for those that torch does not tell."""

    products: str | None  # of matrix products, in the older interface
    convolutions: bool | None  # whether cuDNN may use TF32, in the older interface
    backends: tuple[str, ...]  # the effective precision of each of `_backends()`; (): the older torch


def precision() -> Precision:
    """The settings at present."""
    return Precision(
        _told(torch.get_float32_matmul_precision),
        _told(lambda: torch.backends.cudnn.allow_tf32),
        tuple(backend.fp32_precision for backend in _backends()),
    )


def set_precision(wanted: Precision) -> None:
    """Set what `precision` returned."""
    if wanted.products is not None:
        torch.set_float32_matmul_precision(wanted.products)
    if wanted.convolutions is not None:
        torch.backends.cudnn.allow_tf32 = wanted.convolutions
    for backend, value in zip(_backends(), wanted.backends, strict=True):
        backend.fp32_precision = value


@contextlib.contextmanager
def whole_float32() -> Iterator[None]:
    """Inside, float32 products and convolutions use the full 24 bits on every device.

    By default cuDNN's convolutions use TF32 (11 bits) on GPUs that have it; the features of a network would
    then differ from those on a CPU.
    """
    before = precision()
    try:
        set_precision(Precision("highest", False, (_EXACT,) * len(before.backends)))
        yield
    finally:
        set_precision(before)


def _backends() -> list[Any]:
    """What has a precision of its own in the newer interface; [] for a torch without it."""
    names = (
        (torch.backends.cuda, "matmul"),
        *((backend, name) for backend in (torch.backends.cudnn, torch.backends.mkldnn) for name in _OPS),
    )
    found = [getattr(backend, name, None) for backend, name in names]
    return [operation for operation in found if hasattr(operation, "fp32_precision")]


_OPS = ("conv", "rnn", "matmul")


def _told(setting: Callable[[], Any]) -> Any:
    """The value of a setting; None where torch refuses, because its two interfaces disagree."""
    try:
        return setting()
    except RuntimeError:
        return None
