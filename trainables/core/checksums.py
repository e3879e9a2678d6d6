"""Weights that are known again: safetensors files that carry the hash of what is in them.

safetensors checks where its tensors lie and not what they hold: a flipped bit would be another network.

    save_with_checksum(tensors, path, {"epoch": "3"})
    is_whole(path)                              # before it is trusted
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

SEAL = "sha256"  # its name in the file's metadata
UNREADABLE = (SafetensorError, OSError, ValueError)  # what safetensors raises for a damaged file

Weights = dict[str, Tensor]


def save_with_checksum(tensors: Weights, path: Path, metadata: Mapping[str, str]) -> None:
    """Write tensors and metadata, with their hash."""
    # Not by `save_file`, whose errors do not say that the disk is full.
    with opened(path, "wb") as file:
        file.write(save(tensors, {**metadata, SEAL: seal(tensors, metadata)}))


def read_with_checksum(path: Path) -> tuple[Weights, dict[str, str]]:
    """Tensors and metadata. Raises one of `UNREADABLE` for a file that is damaged.

    A file that was never sealed is read as it is.
    """
    with safe_open(path, "pt") as file:
        # Copies, because the file is mapped: who cuts it later would end this process.
        tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118
        metadata = dict(file.metadata() or {})
    if SEAL in metadata and metadata[SEAL] != seal(tensors, metadata):
        raise ValueError("its content is not what was written")
    return tensors, metadata


def is_whole(path: Path) -> bool:
    """Is this a sealed file, with what was written in it, and no link to one?"""
    try:
        return is_own_file(path) and SEAL in read_with_checksum(path)[1]
    except UNREADABLE:
        return False


def seal(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> str:
    """SHA-256 of names, types, shapes and numbers, and of the metadata but for the seal itself."""
    digest = hashlib.sha256(repr(sorted(item for item in metadata.items() if item[0] != SEAL)).encode())
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        numbers = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
        digest.update(numbers.numpy().data)
    return digest.hexdigest()
