"""Reading a teacher's file: safely (`weights_only`, safetensors), and saying what it holds."""

from __future__ import annotations

import argparse
import json
import pathlib
import pickle
import re
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from trainables.checkpoint_heads import read_head, single_linear
from trainables.checkpoint_layouts import (
    BACKBONE,
    CONTAINERS,
    HEAD,
    PAIR,
    Layout,
)
from trainables.checkpoint_pixels import Said, said_beside, said_by_training, said_by_weights
from trainables.checkpoint_roles import find_layout, namings, split_roles, unwrapped
from trainables.errors import UserError
from trainables.parts.heads import Layer, head_text
from trainables.seal import UNREADABLE, read_sealed
from trainables.trial import file_digest

# What training scripts keep beside the weights, and which is nothing but a record: arguments and paths.
_RECORDS: list[Any] = [
    argparse.Namespace,
    (pathlib.PosixPath, "pathlib.PosixPath"),
    (pathlib.PosixPath, "pathlib._local.PosixPath"),
]
_STATISTICS = ("running_mean", "running_var", "num_batches_tracked")


def tensors(count: int) -> str:
    """`1 tensor`, `2 tensors`."""
    return f"{count} tensor{'s' if count != 1 else ''}"


@dataclass(frozen=True)
class CheckpointFacts:
    """What a checkpoint holds."""

    path: Path
    origin: str  # a row of checkpoint_layouts
    container: str | None  # under which the weights lay; None where the file is flat
    roles: Mapping[str, int]  # role -> number of tensors
    head: tuple[Layer, ...]  # layers of the projection head; empty where there is none
    arch: str | None  # what the file itself says
    options: Mapping[str, Any]  # likewise, of the architecture
    classes: int  # of its classifier, where that is one linear layer; else 0
    parameters: int  # numbers in the backbone, statistics left out
    sha256: str
    remark: str = ""  # what there is to know of it; may be empty
    pixels: Said | None = None  # how they are normalised, where the file says so

    def roles_text(self) -> str:
        """`backbone (318 tensors), head (4 tensors: Linear(2048, 2048)-ReLU-Linear(2048, 128))`."""
        return ", ".join(
            f"{role} ({tensors(count)}{': ' + head_text(self.head) if role == HEAD else ''})"
            for role, count in self.roles.items()
        )


@dataclass(frozen=True)
class ReadCheckpoint:
    """A checkpoint's facts and its tensors."""

    facts: CheckpointFacts
    layout: Layout
    backbones: tuple[Mapping[str, Tensor], ...]  # its backbone, under each naming that it may have
    head: Mapping[str, Tensor]  # as `build_head(facts.head)` names them
    classifier: Mapping[str, Tensor]  # weight and bias; empty unless it is one linear layer


def read_checkpoint(path: Path, field: str) -> ReadCheckpoint:
    """Read `path`, running nothing in it. Raises `UserError` at `field` with what is wrong with the file."""
    path = path.expanduser()
    if not path.is_file():
        problem = "is a folder" if path.is_dir() else "no such file"
        raise UserError(field, problem, value=str(path), expected="a checkpoint's path")
    if path.suffix == ".safetensors":
        found, metadata = _read_safetensors(path, field)
        pixels = said_by_weights(path, metadata)
        container: str | None = None
        beside: frozenset[str] = frozenset()
    else:
        content = _read_torch(path, field)
        pixels = said_by_training(content) or said_beside(path)
        container, found = _weights(content)
        beside = frozenset(name for name in content if isinstance(name, str))
        arch = _said_arch(content)
        metadata = {} if arch is None else {"arch": arch}
    if not found:
        raise UserError(
            field,
            "holds no weights",
            value=str(path),
            expected=f"a state dict, or one under {', '.join((*CONTAINERS, *PAIR))}",
        )
    weights = unwrapped(found)
    layout = find_layout(list(weights), metadata, container, beside)
    roles = split_roles(layout, weights)
    head, head_weights = _head(layout, roles.get(HEAD, {}), metadata, field)
    backbone = roles.get(BACKBONE, {})
    classifier = single_linear(roles)
    facts = CheckpointFacts(
        path=path,
        origin=layout.origin,
        container=container,
        roles={role: len(named) for role, named in roles.items()},
        head=head,
        arch=metadata.get("arch"),
        options=_described(metadata, "options", {}, field) if "arch" in metadata else {},
        classes=len(classifier["weight"]) if classifier else 0,
        parameters=sum(t.numel() for name, t in backbone.items() if not name.endswith(_STATISTICS)),
        sha256=file_digest(path),
        remark=layout.remark if _remarkable(layout, backbone) else "",
        pixels=pixels,
    )
    return ReadCheckpoint(facts, layout, tuple(namings(layout, backbone)), head_weights, classifier)


def _head(
    layout: Layout, weights: Mapping[str, Tensor], metadata: Mapping[str, str], field: str
) -> tuple[tuple[Layer, ...], Mapping[str, Tensor]]:
    """Layers and weights of the head: as the metadata describes it, or as its weights tell."""
    if layout.metadata:  # raykd's own
        described = _described(metadata, "head", [], field)
        return tuple((kind, arguments) for kind, arguments in described), weights
    return read_head(layout, weights, field) if weights else ((), {})


def _described(metadata: Mapping[str, str], name: str, default: Any, field: str) -> Any:
    """What raykd wrote under `name`, of the type of `default`."""
    try:
        found = json.loads(metadata[name]) if name in metadata else default
    except ValueError:
        found = None
    if not isinstance(found, type(default)):
        raise UserError(field, f"its metadata is damaged: {name!r} cannot be read", value=metadata[name])
    return found


def _remarkable(layout: Layout, backbone: Mapping[str, Tensor]) -> bool:
    filters = backbone["conv1.weight"].shape[0] if "conv1.weight" in backbone else 0
    return filters > layout.remark_above or not layout.remark_above


def _read_safetensors(path: Path, field: str) -> tuple[dict[str, Tensor], dict[str, str]]:
    try:
        return read_sealed(path)
    except UNREADABLE as error:
        raise _unreadable(path, field, f"damaged or no safetensors file: {error}") from None


def _read_torch(path: Path, field: str) -> dict[str, Any]:
    try:
        with torch.serialization.safe_globals(_RECORDS), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about the pickle's version: what is wrong is said below
            content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        # Only what it asked for is repeated: torch's own text tells people to switch the safety off.
        asked = re.search(r"GLOBAL (\S+)", str(error))
        advice = _WHOLE if asked and _MODEL.match(asked[1]) else _ASKS
        reason = advice.format(asked[1]) if asked else "damaged, or no checkpoint"
        raise _unreadable(path, field, reason) from None
    except Exception as error:  # torch raises half a dozen kinds for damaged files
        reason = f"damaged, or no checkpoint ({type(error).__name__}: {_first_line(error)})"
        raise _unreadable(path, field, reason) from None
    if not isinstance(content, dict):
        raise _unreadable(path, field, f"holds a {type(content).__name__}, not a state dict")
    return content


_ASKS = (
    "it asks to run {}, and no file's code is run. If it is a record of settings (omegaconf, a class of the "
    "training script), load the file where its code is at home and trusted, and save the weights alone: "
    "`torch.save({{'state_dict': content['state_dict']}}, 'weights.pth')`; of a whole model of your own, "
    "`torch.save(model.state_dict(), 'weights.pth')`"
)

_MODEL = re.compile(r"(timm\.(models|layers)|torchvision\.models|torch\.nn\.modules)\.")
_WHOLE = (
    "it is a whole model, pickled with its classes ({}), and no file's code is run. Load the file where it "
    "was made, and save the weights alone: `torch.save(model.state_dict(), 'weights.pth')`"
)


def _weights(content: Mapping[str, Any]) -> tuple[str | None, dict[str, Tensor]]:
    """(container, tensors) of a loaded file. A teacher and its student are one set, each under its name."""
    for name in CONTAINERS:
        if isinstance(content.get(name), dict) and (found := _tensors(content[name])):
            return name, found
    pair = {name: _tensors(content[name]) for name in PAIR if isinstance(content.get(name), dict)}
    if any(pair.values()):
        # Only one of them may be wrapped: DINO wraps its teacher where that has batch normalisation.
        return next(name for name in pair if pair[name]), {
            f"{name}.{key}": tensor for name in pair for key, tensor in unwrapped(pair[name]).items()
        }
    return None, _tensors(content)


def _said_arch(content: Mapping[str, Any]) -> str | None:
    """The architecture that the file names, itself or in the arguments of its training."""
    arguments = (content.get("args"), content.get("opt"))
    for place in (content, *(vars(a) for a in arguments if isinstance(a, argparse.Namespace))):
        for name in ("arch", "student_arch"):
            if isinstance(place.get(name), str):
                return str(place[name])
    return None


def _tensors(content: Mapping[str, Any]) -> dict[str, Tensor]:
    return {
        key: value for key, value in content.items() if isinstance(key, str) and isinstance(value, Tensor)
    }


def _unreadable(path: Path, field: str, reason: str) -> UserError:
    return UserError(field, f"cannot be read: {reason}", value=str(path))


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or ["nothing said"])[0][:200]
