"""Reading a teacher's file: safely (`weights_only`, safetensors), and saying what it holds."""

from __future__ import annotations

import argparse
import json
import pickle
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from trainables.checkpoint_layouts import (
    CONTAINERS,
    HEAD,
    find_layout,
    head_layers,
    split_roles,
    unwrapped,
)
from trainables.errors import UserError
from trainables.parts.heads import Layer, head_text
from trainables.trial import file_digest


@dataclass(frozen=True)
class CheckpointFacts:
    """What a checkpoint holds."""

    path: Path
    origin: str  # a row of checkpoint_layouts
    container: str | None  # under which the weights lay; None where the file is flat
    roles: Mapping[str, int]  # role -> number of tensors
    head: tuple[Layer, ...]  # layers of the projection head; empty where there is none
    arch: str | None  # what the file itself says
    sha256: str

    def roles_text(self) -> str:
        """`backbone (318 tensors), head (4 tensors: Linear(2048, 2048)-ReLU-Linear(2048, 128))`."""
        return ", ".join(
            f"{role} ({count} tensors{': ' + head_text(self.head) if role == HEAD else ''})"
            for role, count in self.roles.items()
        )


@dataclass(frozen=True)
class ReadCheckpoint:
    """A checkpoint's facts and its tensors by role."""

    path: Path
    facts: CheckpointFacts
    roles: Mapping[str, Mapping[str, Tensor]]


def read_checkpoint(path: Path, field: str) -> ReadCheckpoint:
    """Read `path`, running nothing in it. Raises `UserError` at `field` with what is wrong with the file."""
    path = path.expanduser()
    if not path.is_file():
        raise UserError(field, "no such file", value=str(path), expected="a checkpoint's path")
    sha256 = file_digest(path)
    if path.suffix == ".safetensors":
        found, metadata = _read_safetensors(path, field)
        container: str | None = None
    else:
        content, metadata = _read_torch(path, field), {}
        container, found = _weights(content)
        if isinstance(content.get("arch"), str):
            metadata["arch"] = content["arch"]
    if not found:
        raise UserError(
            field, "holds no weights", value=str(path), expected=f"a state dict, or one under {CONTAINERS}"
        )
    tensors = unwrapped(found)
    layout = find_layout(list(tensors), metadata)
    roles = split_roles(layout, tensors)
    head: tuple[Layer, ...] = ()
    if "head" in metadata:
        head = tuple((kind, arguments) for kind, arguments in json.loads(metadata["head"]))
    elif HEAD in roles:
        head = tuple(head_layers(layout, roles[HEAD]))
    facts = CheckpointFacts(
        path=path,
        origin=layout.origin,
        container=container,
        roles={role: len(named) for role, named in roles.items()},
        head=head,
        arch=metadata.get("arch"),
        sha256=sha256,
    )
    return ReadCheckpoint(path, facts, roles)


def _read_safetensors(path: Path, field: str) -> tuple[dict[str, Tensor], dict[str, str]]:
    try:
        with safe_open(path, "pt") as file:
            return {key: file.get_tensor(key) for key in file.keys()}, dict(file.metadata() or {})  # noqa: SIM118
    except (SafetensorError, OSError, ValueError) as error:
        raise _unreadable(path, field, f"damaged or no safetensors file: {error}") from None


def _read_torch(path: Path, field: str) -> dict[str, Any]:
    try:
        # timm's training script keeps its arguments in a Namespace, which is nothing but a record.
        with torch.serialization.safe_globals([argparse.Namespace]):
            content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        # Only what it asked for is repeated: torch's own text tells people to switch the safety off.
        asked = re.search(r"GLOBAL (\S+)", str(error))
        reason = (
            f"it asks to run {asked[1]}, and no file's code is run" if asked else "damaged, or no checkpoint"
        )
        raise _unreadable(path, field, reason) from None
    except Exception as error:  # torch raises half a dozen kinds for damaged files
        reason = f"damaged, or no checkpoint ({type(error).__name__}: {_first_line(error)})"
        raise _unreadable(path, field, reason) from None
    if not isinstance(content, dict):
        raise _unreadable(path, field, f"holds a {type(content).__name__}, not a state dict")
    return content


def _weights(content: Mapping[str, Any]) -> tuple[str | None, dict[str, Tensor]]:
    """(container, tensors) of a loaded file."""
    for name in CONTAINERS:
        if isinstance(content.get(name), dict) and (tensors := _tensors(content[name])):
            return name, tensors
    return None, _tensors(content)


def _tensors(content: Mapping[str, Any]) -> dict[str, Tensor]:
    return {
        key: value for key, value in content.items() if isinstance(key, str) and isinstance(value, Tensor)
    }


def _unreadable(path: Path, field: str, reason: str) -> UserError:
    return UserError(field, f"cannot be read: {reason}", value=str(path))


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or ["nothing said"])[0][:200]
