"""The views of a batch on a GPU: all views by one pass, parameters by one copy, compiled where that works."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from trainables.core.heartbeat import heartbeat_while
from trainables.views.masked import columns, masked_views
from trainables.views.packed import packed
from trainables.views.parameter_table import NO_JITTER, Table

# Values of one piece that a batch is worked through in: so many that they keep a GPU busy. 64 views of
# 224 px, 38 MB a temporary; without a compiler a blur needs 24 of them.
PIECE = 64 * 3 * 224**2
# What stands in the place of an operation that one view lacks, and leaves pixels as they are.
_NEUTRAL: Table = {
    "order": np.array(NO_JITTER, np.uint8),
    "factors": np.zeros(4, np.float32),
    "grayscale": np.array(False),
    "sigma": np.array(0, np.float32),
    "solarise": np.array(False),
}
_MOST_COMPILED = 8  # kinds of batches, for each of which compiling takes up to a minute

Compute = Callable[[Tensor, dict[str, Tensor], int, int], Tensor]


def alike(tables: list[Table]) -> bool:
    """Can these views be computed by the same operations?"""
    return len({frozenset(table.keys() - _NEUTRAL.keys()) for table in tables}) == 1


def views_on_gpu(
    images: Tensor, tables: list[Table], out: int, compute: Compute | None = None
) -> list[Tensor]:
    """(B, 3, S, S) uint8 -> for each table (B, 3, out, out) float32, normalised.

    A table holds the parameters of one view, a row a sample; the tables are `alike`. The host does not wait.
    """
    compute = compute or _COMPILED
    piece = max(1, PIECE // (3 * out**2 * len(tables)))
    pieces = []
    for start in range(0, len(images), piece):
        part = slice(start, start + piece)
        rows = [{name: values[part] for name, values in table.items()} for table in tables]
        own = _joined(rows, len(images[part]))
        given = packed(columns(own, images.shape[2], out), images.device)
        pieces.append(compute(images[part], given, out, len(tables)).unflatten(0, (len(tables), -1)))
    if not pieces:
        return [torch.empty((0, 3, out, out), device=images.device) for _ in tables]
    return list((pieces[0] if len(pieces) == 1 else torch.cat(pieces, 1)).unbind(0))


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
        self._function, self._options = function, options
        self._compiled: Compute | None = None
        self._kinds: set[Any] = set()
        self.works = True  # so far

    def __call__(self, images: Tensor, given: dict[str, Tensor], out: int, views: int) -> Tensor:
        """What the function returns."""
        kind = (images.device, images.shape, out, views, tuple((n, t.shape) for n, t in given.items()))
        known = kind in self._kinds
        if self.works and (known or len(self._kinds) < _MOST_COMPILED):
            try:
                with contextlib.nullcontext() if known else heartbeat_while("compiling the views"):
                    made = self._call_compiled(images, given, out, views)
            except torch.cuda.OutOfMemoryError:
                raise
            except Exception:  # of whatever class a missing compiler raises
                self.works = False
            else:
                self._kinds.add(kind)
                return made
        return self._function(images, given, out, views)

    def _call_compiled(self, images: Tensor, given: dict[str, Tensor], out: int, views: int) -> Tensor:
        if self._compiled is None:  # not before it is needed: torch's compiler takes seconds to import
            self._compiled = torch.compile(self._function, dynamic=False, fullgraph=True, **self._options)
        return self._compiled(images, given, out, views)


_COMPILED = Compiled(masked_views)
