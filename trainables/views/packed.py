"""Parameters of views on a device, by one copy."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy.typing as npt
import torch
from torch import Tensor

_ALIGNED = 64  # bytes: what vectorised kernels expect of the beginning of a tensor


def packed(columns: Mapping[str, npt.NDArray[Any]], device: torch.device) -> dict[str, Tensor]:
    """The arrays as tensors on `device`: views of one block of bytes, which one copy carries there.

    To a GPU the copy starts from pinned memory, so the host does not wait for it.
    """
    begins, size = {}, 0
    for name, values in columns.items():
        begins[name] = size
        size += -(-values.nbytes // _ALIGNED) * _ALIGNED
    block = torch.empty(size, dtype=torch.uint8, pin_memory=device.type == "cuda")
    dtypes = {}
    for name, values in columns.items():
        own = block.numpy()[begins[name] : begins[name] + values.nbytes].view(values.dtype)
        own.reshape(values.shape)[...] = values
        dtypes[name] = torch.from_numpy(own).dtype
    there = block.to(device, non_blocking=True)
    return {
        name: there[begins[name] : begins[name] + values.nbytes].view(dtypes[name]).view(values.shape)
        for name, values in columns.items()
    }
