"""The views of a batch on a GPU: all views by one pass, parameters by one copy, compiled where that works."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from trainables.core.heartbeat import heartbeat_while
from trainables.views.masked import columns, masked_views
from trainables.views.packed import packed
from trainables.views.parameter_table import NO_JITTER, Table

# Values of one piece that a batch is worked through in: so many that they keep a GPU busy (64 images of 224 px,
# 38 MB a temporary; without a compiler a blur needs 24 of them).
PIECE = 64 * 3 * 224**2
# What stands in the place of an operation that one view lacks, and leaves pixels as they are.
_NEUTRAL: Table = {
    "order": np.uint8(NO_JITTER),
    "factors": np.zeros(4, np.float32),
    "grayscale": np.False_,
    "sigma": np.float32(0),
    "solarise": np.False_,
}  # type: ignore[dict-item]
_MOST_COMPILED = 8  # kinds of batches, for each of which compiling takes up to a minute

Compute = Callable[[Tensor, dict[str, Tensor], int, int], Tensor]


def alike(tables: list[Table]) -> bool:
    """Can these views be computed by the same operations?"""
    return len({frozenset(table.keys() - _NEUTRAL.keys()) for table in tables}) == 1


def views_on_gpu(images: Tensor, tables: list[Table], out: int, compute: Compute | None = None) -> list[Tensor]:
    """(B, 3, S, S) uint8 -> for each table (B, 3, out, out) float32, normalised.

    A table holds the parameters of one view, a row a sample; the tables are `alike`. Nothing waits for the GPU.
    """
    compute = compute or _COMPILED
    made = torch.empty((len(tables), len(images), 3, out, out), device=images.device)
    piece = max(1, PIECE // (3 * out**2 * len(tables)))
    for start in range(0, len(images), piece):
        part = slice(start, start + piece)
        rows = [{name: values[part] for name, values in table.items()} for table in tables]
        own = _joined(rows, len(images[part]))
        given = packed(columns(own, images.shape[2], out), images.device)
        x = compute(images[part], given, out, len(tables)).unflatten(0, (len(tables), -1))
        if len(images) <= piece:
            return list(x.unbind(0))
        made[:, part] = x
    return list(made.unbind(0))


def _joined(tables: list[Table], count: int) -> Table:
    """One table of the samples of all; operations that only some have are neutral in the others."""
    names = dict.fromkeys(name for table in tables for name in table)
    neutral = {name: np.stack([_NEUTRAL[name]] * count) for name in names if name in _NEUTRAL}
    return {name: np.concatenate([{**neutral, **table}[name] for table in tables]) for name in names}


class Compiled:
    """A function of tensors that is compiled for the first few kinds of arguments; else called as it is.

    Without a compiler (Triton, a C++ compiler) it is called as it is, without a word.
    """

    def __init__(self, function: Compute, **options: Any) -> None:
        self._function = function
        self._compiled: Compute | None = torch.compile(function, dynamic=False, fullgraph=True, **options)
        self._kinds: set[Any] = set()

    def __call__(self, images: Tensor, given: dict[str, Tensor], out: int, views: int) -> Tensor:
        """What the function returns."""
        kind = (images.device, images.shape, out, views, tuple((n, t.shape) for n, t in given.items()))
        known = kind in self._kinds
        if self._compiled is None or not known and len(self._kinds) == _MOST_COMPILED:
            return self._function(images, given, out, views)
        try:
            if known:
                return self._compiled(images, given, out, views)
            with heartbeat_while("compiling the views"):
                made = self._compiled(images, given, out, views)
        except torch.OutOfMemoryError:
            raise
        except Exception:
            self._compiled = None
            return self._function(images, given, out, views)
        self._kinds.add(kind)
        return made


_COMPILED = Compiled(masked_views)
