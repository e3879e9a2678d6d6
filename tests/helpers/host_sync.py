"""Finds what would make the host wait for a GPU, on a machine that has none.

Inside `waits()` every operation is looked at as torch dispatches it (reading a number, an index whose length
depends on values) and as Python calls it (a copy to the host, a tensor made from numbers of the host).
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

OPERATIONS = {  # their results have a size or a value that the host needs
    "_local_scalar_dense", "item", "is_nonzero", "equal", "nonzero", "nonzero_numpy", "masked_select",
    "unique_dim", "_unique", "_unique2", "unique_consecutive", "bincount",
}  # fmt: skip
BY_MASK = {"index", "index_put", "index_put_", "_index_put_impl_"}  # of nonzero's kind if an index is bool
CALLS = {
    "tensor", "as_tensor", "from_numpy", "cpu", "numpy", "item", "tolist", "__bool__", "__int__",
    "__float__", "__index__", "nonzero", "argwhere",
}  # fmt: skip


class _Dispatched(TorchDispatchMode):
    def __init__(self, found: list[str]) -> None:
        super().__init__()
        self.found = found

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        if name in OPERATIONS or (name in BY_MASK and any(_is_mask(index) for index in args[1])):
            self.found.append(f"aten::{name}")
        return func(*args, **(kwargs or {}))


class _Called(TorchFunctionMode):
    def __init__(self, found: list[str]) -> None:
        super().__init__()
        self.found = found

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = getattr(func, "__name__", "")
        if name in CALLS:
            self.found.append(name)
        return func(*args, **(kwargs or {}))


@contextlib.contextmanager
def waits() -> Iterator[list[str]]:
    """The list of what was found so far, filled while the block runs."""
    found: list[str] = []
    with _Called(found), _Dispatched(found):
        yield found


def _is_mask(index: object) -> bool:
    return isinstance(index, torch.Tensor) and index.dtype in (torch.bool, torch.uint8)
