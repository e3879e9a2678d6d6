"""Reading a teacher's file safely (`weights_only`, safetensors), and describing its content."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import Tensor

from trainables.core.errors import UserError
from trainables.networks.heads import Layer, head_text
from trainables.spec.trial import file_digest
from trainables.teachers.pretrained.claims import Claims, read_claims
from trainables.teachers.pretrained.content import Found, find_weights
from trainables.teachers.pretrained.heads import classifies, read_head, single_linear
from trainables.teachers.pretrained.layouts import LAYOUTS
from trainables.teachers.pretrained.layouts.base import BACKBONE, CLASSIFIER, HEAD, Layout
from trainables.teachers.pretrained.normalisation import (
    WrittenNormalisation,
    by_arguments,
    by_folder,
    by_weights,
)
from trainables.teachers.pretrained.open import open_checkpoint
from trainables.teachers.pretrained.preprocessing import NOTHING, Preprocessing, by_file
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
    """A description of a checkpoint's content."""

    path: Path
    origin: str  # a row of pretrained.layouts
    container: str | None  # path of names to the weights; None if the file is flat
    roles: Mapping[str, int]  # role -> number of tensors
    head: tuple[Layer, ...]  # layers of the projection head; empty if there is none that can be read
    arch: str | None  # as claimed by the file or by the config.json beside it
    options: Mapping[str, Any]  # of the architecture, from the same source
    classes: int  # of its classifier, if that is one linear layer; else 0
    parameters: int  # number of the backbone's parameters, without batch statistics
    sha256: str
    remark: str = ""  # for the user; may be empty
    head_problem: str = ""  # why the projection head cannot be read; empty if it can or if there is none
    configured: bool = False  # architecture and options come from the config.json beside the file
    pixels: WrittenNormalisation | None = None  # pixel normalisation, if the file contains it
    preprocessing: Preprocessing = NOTHING  # how images were cut and resized, as far as it says so
    precision: str = "float32"  # in which the backbone's weights are stored; they are read to float32

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
    backbones: tuple[Mapping[str, Tensor], ...]  # its backbone, once for each possible naming
    head: Mapping[str, Tensor]  # named as in `build_head(facts.head)`
    classifier: Mapping[str, Tensor]  # weight and bias; empty unless it is one linear layer
    weights: Mapping[str, Tensor]  # all weights in the container, by the names in the file


def read_checkpoint(path: Path, field: str) -> ReadCheckpoint:
    """Read the file at `path` without running code in it. Raises `UserError` at `field` if that fails.

    A projection head that cannot be read does not make the file unreadable: `facts.head_problem` has the
    reason.
    """
    path = path.expanduser()
    opened = open_checkpoint(path, field)
    content, metadata = opened.content, opened.metadata
    claims = read_claims({} if opened.flat else content, metadata, path, field)
    found = find_weights(content, path, field)
    weights = unwrapped(found.tensors)
    layout, inner, aside = _laid_out(weights, metadata, found, claims)
    roles = split_roles(layout, inner)
    for key, tensor in aside.items():
        roles.setdefault(f"other: {key.split('.')[0]}", {})[key] = tensor
    head, head_weights, problem = _head(layout, roles, metadata, claims, field)
    if layout.if_classifier and HEAD not in roles:
        layout = replace(layout, origin=layout.if_classifier)
    pixels = by_weights(path, metadata) if opened.flat else by_arguments(content) or by_folder(path)
    backbone = roles.get(BACKBONE, {})
    classifier = single_linear(roles)
    named = namings(layout, backbone)
    if inner.keys() != weights.keys() and not layout.roles[BACKBONE]:
        named.append(dict(weights))  # the removed word may have been part of the network's own names
    filters = backbone["conv1.weight"].shape[0] if "conv1.weight" in backbone else 0
    facts = CheckpointFacts(
        path=path,
        origin=layout.origin,
        container=found.container,
        roles={role: len(named) for role, named in roles.items() if named},
        head=head,
        arch=claims.arch,
        options=_options(metadata, claims, field),
        classes=len(classifier["weight"]) if classifier else 0,
        parameters=sum(t.numel() for name, t in backbone.items() if not name.endswith(_STATISTICS)),
        sha256=file_digest(path),
        remark=layout.remark if filters > layout.remark_above or not layout.remark_above else "",
        head_problem=problem,
        configured=claims.configured,
        pixels=pixels,
        preprocessing=by_file(path, metadata, {} if opened.flat else content),
        precision=_precision(backbone.values()),
    )
    return ReadCheckpoint(facts, layout, tuple(named), head_weights, classifier, weights)


def _precision(weights: Iterable[Tensor]) -> str:
    """`float32`, `bfloat16`, or both where a file has both; of matrices and kernels."""
    kinds = {one.dtype for one in weights if one.is_floating_point() and one.ndim > 1}
    return " and ".join(sorted(str(kind).removeprefix("torch.") for kind in kinds)) or "float32"


def _laid_out(
    weights: Mapping[str, Tensor], metadata: Mapping[str, str], found: Found, claims: Claims
) -> tuple[Layout, Mapping[str, Tensor], Mapping[str, Tensor]]:
    """(row of the table, weights that it describes, other weights).

    While only the last row fits, the first word of the keys is removed if it has no meaning.
    """
    inner, aside = dict(weights), dict[str, Tensor]()
    while True:
        layout = find_layout(inner, metadata, found.container, found.beside, claims.arguments)
        if layout is not LAYOUTS[-1]:
            return layout, inner, aside
        shorter, more = without_first_word(inner)
        if shorter.keys() == inner.keys():
            return layout, inner, aside
        inner, aside = shorter, {**aside, **more}


def _options(metadata: Mapping[str, str], claims: Claims, field: str) -> Mapping[str, Any]:
    if claims.configured:
        return claims.options
    options: Mapping[str, Any] = _described(metadata, "options", {}, field) if "arch" in metadata else {}
    return options


def _head(
    layout: Layout,
    roles: dict[str, dict[str, Tensor]],
    metadata: Mapping[str, str],
    claims: Claims,
    field: str,
) -> tuple[tuple[Layer, ...], Mapping[str, Tensor], str]:
    """(layers, weights, problem) of the head, from the metadata or from its weights.

    A head that proves to be a classifier is moved to that role.
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
    if classifies(layout, head, claims.classes):
        roles[CLASSIFIER] = roles.pop(HEAD)
        return (), {}, ""
    return head, named, ""


def _described(metadata: Mapping[str, str], name: str, default: Any, field: str) -> Any:
    """The value that raykd wrote under `name`. `UserError` if it has another type than `default`."""
    try:
        found = json.loads(metadata[name]) if name in metadata else default
    except ValueError:
        found = None
    if not isinstance(found, type(default)):
        raise UserError(field, f"its metadata is damaged: {name!r} cannot be read", value=metadata[name])
    return found
