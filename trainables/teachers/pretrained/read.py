"""Reading a teacher's file: safely (`weights_only`, safetensors), and saying what it holds."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import Tensor

from trainables.core.errors import UserError
from trainables.networks.heads import Layer, head_text
from trainables.spec.trial import file_digest
from trainables.teachers.pretrained.claims import Said, said_by
from trainables.teachers.pretrained.content import Found, find_weights
from trainables.teachers.pretrained.heads import classifies, read_head, single_linear
from trainables.teachers.pretrained.layouts import LAYOUTS
from trainables.teachers.pretrained.layouts.base import BACKBONE, CLASSIFIER, HEAD, Layout
from trainables.teachers.pretrained.normalisation import Said as SaidOfPixels
from trainables.teachers.pretrained.normalisation import said_beside, said_by_training, said_by_weights
from trainables.teachers.pretrained.open import open_checkpoint
from trainables.teachers.pretrained.roles import (
    find_layout,
    namings,
    split_roles,
    unwrapped,
    without_first_word,
)

_STATISTICS = ("running_mean", "running_var", "num_batches_tracked")


def tensors(count: int) -> str:
    """`1 tensor`, `2 tensors`."""
    return f"{count} tensor{'s' if count != 1 else ''}"


@dataclass(frozen=True)
class CheckpointFacts:
    """What a checkpoint holds."""

    path: Path
    origin: str  # a row of pretrained.layouts
    container: str | None  # under which the weights lay; None where the file is flat
    roles: Mapping[str, int]  # role -> number of tensors
    head: tuple[Layer, ...]  # layers of the projection head; empty where there is none that can be read
    arch: str | None  # what the file itself says, or the config.json beside it
    options: Mapping[str, Any]  # likewise, of the architecture
    classes: int  # of its classifier, where that is one linear layer; else 0
    parameters: int  # numbers in the backbone, statistics left out
    sha256: str
    remark: str = ""  # what there is to know of it; may be empty
    head_problem: str = ""  # why its projection head cannot be read; empty where it can, or there is none
    configured: bool = False  # architecture and options are those of the config.json beside it
    pixels: SaidOfPixels | None = None  # how they are normalised, where the file says so

    def roles_text(self) -> str:
        """`backbone (318 tensors), head (4 tensors: Linear(2048, 2048)-ReLU-Linear(2048, 128))`."""
        head = head_text(self.head) or "cannot be read"
        return ", ".join(
            f"{role} ({tensors(count)}{': ' + head if role == HEAD else ''})"
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
    weights: Mapping[str, Tensor]  # all that lay under the container, by the names in the file


def read_checkpoint(path: Path, field: str) -> ReadCheckpoint:
    """Read `path`, running nothing in it. Raises `UserError` at `field` with what is wrong with the file.

    A projection head that cannot be read is no reason to refuse the file: `facts.head_problem` says why.
    """
    path = path.expanduser()
    opened = open_checkpoint(path, field)
    content, metadata = opened.content, opened.metadata
    said = said_by({} if opened.flat else content, metadata, path, field)
    found = find_weights(content, path, field)
    weights = unwrapped(found.tensors)
    layout, inner, aside = _laid_out(weights, metadata, found, said)
    roles = split_roles(layout, inner)
    for key, tensor in aside.items():
        roles.setdefault(f"other: {key.split('.')[0]}", {})[key] = tensor
    head, head_weights, problem = _head(layout, roles, metadata, said, field)
    if layout.if_classifier and HEAD not in roles:
        layout = replace(layout, origin=layout.if_classifier)
    pixels = (
        said_by_weights(path, metadata) if opened.flat else said_by_training(content) or said_beside(path)
    )
    backbone = roles.get(BACKBONE, {})
    classifier = single_linear(roles)
    named = namings(layout, backbone)
    if inner.keys() != weights.keys() and not layout.roles[BACKBONE]:
        named.append(dict(weights))  # the word that was taken off may have been the network's own
    facts = CheckpointFacts(
        path=path,
        origin=layout.origin,
        container=found.container,
        roles={role: len(named) for role, named in roles.items() if named},
        head=head,
        arch=said.arch,
        options=_options(metadata, said, field),
        classes=len(classifier["weight"]) if classifier else 0,
        parameters=sum(t.numel() for name, t in backbone.items() if not name.endswith(_STATISTICS)),
        sha256=file_digest(path),
        remark=layout.remark if _remarkable(layout, backbone) else "",
        head_problem=problem,
        configured=said.configured,
        pixels=pixels,
    )
    return ReadCheckpoint(facts, layout, tuple(named), head_weights, classifier, weights)


def _laid_out(
    weights: Mapping[str, Tensor], metadata: Mapping[str, str], found: Found, said: Said
) -> tuple[Layout, Mapping[str, Tensor], Mapping[str, Tensor]]:
    """(row of the table, the weights that it is of, what lies beside those).

    Where no row but the last fits, a first word that says nothing is taken off the keys, and again.
    """
    inner, aside = dict(weights), dict[str, Tensor]()
    while True:
        layout = find_layout(inner, metadata, found.container, found.beside, said.arguments)
        if layout is not LAYOUTS[-1]:
            return layout, inner, aside
        shorter, more = without_first_word(inner)
        if shorter.keys() == inner.keys():
            return layout, inner, aside
        inner, aside = shorter, {**aside, **more}


def _options(metadata: Mapping[str, str], said: Said, field: str) -> Mapping[str, Any]:
    if said.configured:
        return said.options
    options: Mapping[str, Any] = _described(metadata, "options", {}, field) if "arch" in metadata else {}
    return options


def _head(
    layout: Layout,
    roles: dict[str, dict[str, Tensor]],
    metadata: Mapping[str, str],
    said: Said,
    field: str,
) -> tuple[tuple[Layer, ...], Mapping[str, Tensor], str]:
    """Layers and weights of the head, as the metadata describes it or as its weights tell, and what is wrong.

    A head that turns out to be a classifier moves to that role.
    """
    weights = roles.get(HEAD, {})
    if layout.metadata:  # raykd's own
        described = _described(metadata, "head", [], field)
        return tuple((kind, arguments) for kind, arguments in described), weights, ""
    if not weights:
        return (), {}, ""
    try:
        head, named = read_head(layout, weights, field)
    except UserError as error:
        return (), {}, error.message
    if classifies(layout, head, said.classes):
        roles[CLASSIFIER] = roles.pop(HEAD)
        return (), {}, ""
    return head, named, ""


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
