"""Safetensors files with a checksum of their content.

safetensors checks where tensors lie in the file and not their numbers: a flipped bit changes the network.

    save_with_checksum(tensors, path, {"epoch": "3"})
    is_whole(path)                              # before the file is used
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from trainables.core.files import is_own_file, opened

CHECKSUM = "sha256"  # the key in the file's metadata
UNREADABLE = (SafetensorError, OSError, ValueError)  # what safetensors raises for a damaged file

Weights = dict[str, Tensor]


def save_with_checksum(tensors: Weights, path: Path, metadata: Mapping[str, str]) -> None:
    """Write tensors and metadata with their checksum. Raises `OSError` as the disk does."""
    # Not by `save_file`, whose errors do not say that the disk is full.
    with opened(path, "wb") as file:
        file.write(save(tensors, {**metadata, CHECKSUM: checksum(tensors, metadata)}))


def read_with_checksum(path: Path) -> tuple[Weights, dict[str, str]]:
    """Return tensors and metadata. Raises one of `UNREADABLE` for a damaged file.

    A file without a checksum is read as it is.
    """
    with safe_open(path, "pt") as file:
        # Copied out of the mapped file: a process that reads pages of a truncated file is killed.
        tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118
        metadata = dict(file.metadata() or {})
    if CHECKSUM in metadata and metadata[CHECKSUM] != checksum(tensors, metadata):
        raise ValueError("its content is not what was written")
    return tensors, metadata


def is_whole(path: Path) -> bool:
    """Whether this is a regular file (no link) with a checksum, and its content matches the checksum."""
    try:
        return is_own_file(path) and CHECKSUM in read_with_checksum(path)[1]
    except UNREADABLE:
        return False


def checksum(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> str:
    """SHA-256 of the tensors' names, types, shapes and numbers, and of the metadata without `CHECKSUM`."""
    digest = hashlib.sha256(repr(sorted(item for item in metadata.items() if item[0] != CHECKSUM)).encode())
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        numbers = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
        digest.update(numbers.numpy().data)
    return digest.hexdigest()
