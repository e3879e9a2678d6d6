"""Reading the projection head in a file of another project: its layers, and its weights under raykd's names.

A file contains weights, not layers. Positions and shapes of the weights determine most layers: a matrix is a
linear layer, running statistics are a batch normalisation, and one missing position is an activation. The
kind of activation comes from the origin's row in `pretrained.layouts`. A head that the origin's code cannot
make is refused.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise

from torch import Tensor

from trainables.core.errors import UserError
from trainables.networks.heads import Layer, batch_norm, linear
from trainables.teachers.pretrained.layouts.base import CLASSIFIER, Layout

# torch's old and new names for the length and the direction of a weight-normed layer.
_LENGTHS = ("weight_g", "parametrizations.weight.original0")
_DIRECTIONS = ("weight_v", "parametrizations.weight.original1")
_BODIES = ("mlp.", "layers.")  # prefixes in the heads of DINO and lightly
_LAST = "last_layer."


def read_head(
    layout: Layout, tensors: Mapping[str, Tensor], field: str
) -> tuple[tuple[Layer, ...], dict[str, Tensor]]:
    """(layers, weights named as in `build_head(layers)`) from a head's `tensors`.

    Raises `UserError` at `field` for a layer of unknown kind, and for a head that the origin cannot make.
    """
    body: dict[int, dict[str, Tensor]] = {}
    last: dict[str, Tensor] = {}
    for key, tensor in tensors.items():
        if key.startswith(_LAST):
            last[key.removeprefix(_LAST)] = tensor
            continue
        name = next((key.removeprefix(prefix) for prefix in _BODIES if key.startswith(prefix)), key)
        number, _, parameter = name.partition(".")
        if not number.isdigit():
            number, parameter = "0", name  # a single layer has no number
        body.setdefault(int(number), {})[parameter] = tensor
    layers: list[Layer] = []
    weights: dict[str, Tensor] = {}

    def add(layer: Layer, named: Mapping[str, Tensor]) -> None:
        weights.update({f"{len(layers)}.{name}": tensor for name, tensor in named.items()})
        layers.append(layer)

    known = sorted(body)
    if any(after - before > 2 for before, after in pairwise([-1, *known])):
        raise _another(f"layers at the positions {', '.join(map(str, known))}", layout, field)
    for position in range(known[-1] + 1 if known else 0):
        if position in body:
            named = _plain(body[position])
            add(_kind(named, position, layout, field), named)
        else:
            add((layout.activation, {}), {})
    if last:
        add(("l2_normalise", {}), {})
        named = _plain(last)
        add(_kind(named, len(layers), layout, field), named)
    _check_complete(layers, layout, field)
    return tuple(layers), weights


def _check_complete(layers: Sequence[Layer], layout: Layout, field: str) -> None:
    """Refuse a head that this origin's code cannot make: some of its weights are missing.

    An origin without a list of heads may have any head that begins with a linear layer and lacks a bias only
    before a batch normalisation.
    """
    kinds = [kind if arguments.get("bias", True) else "matrix" for kind, arguments in layers]
    text = " ".join(kinds)
    if layout.heads:
        complete = text in layout.heads
    else:
        pairs = zip(kinds, [*kinds[1:], ""], strict=True)
        complete = kinds[0] in ("linear", "matrix") and all(
            b == "batch_norm" for a, b in pairs if a == "matrix"
        )
    if not complete:
        raise _another(f"the layers '{text}'", layout, field)


def _another(has: str, layout: Layout, field: str) -> UserError:
    return UserError(
        field,
        f"its head has, by its weights, {has}, which {layout.origin} does not make: weights are missing, or "
        "it is another head (`matrix`: a linear layer without bias)",
        expected=" or ".join(f"'{head}'" for head in layout.heads) or None,
    )


def classifies(layout: Layout, layers: Sequence[Layer], classes: int) -> bool:
    """Whether the layers are a classifier in the place of this origin's projection head.

    They are if the last layer has as many outputs as the file claims classes, or if the hidden layer is
    narrower than the features although the origin's never is (`wide_head`).
    """
    plain = [arguments for kind, arguments in layers if kind == "linear"]
    if not plain or any(kind not in ("linear", "relu") for kind, _ in layers):
        return False
    if classes and plain[-1]["out_features"] == classes:
        return True
    return layout.wide_head and plain[0]["out_features"] < plain[0]["in_features"]


def _kind(named: Mapping[str, Tensor], position: int, layout: Layout, field: str) -> Layer:
    """The layer that has these weights."""
    names = {name for name in named if name != "num_batches_tracked"}
    if names in ({"weight"}, {"weight", "bias"}) and named["weight"].ndim == 2:
        out_dim, in_dim = named["weight"].shape
        return linear(in_dim, out_dim, bias="bias" in names)
    statistics = {"running_mean", "running_var"}
    if names in (statistics, statistics | {"weight", "bias"}):
        return batch_norm(len(named["running_mean"]), affine="weight" in names)
    raise UserError(
        field,
        f"its head (origin {layout.origin}) has a layer of an unknown kind at position {position}, "
        f"with {', '.join(sorted(names))}",
        expected="linear layers, batch normalisations and the activations between them",
    )


def _plain(named: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A weight-normed layer as the plain layer that computes the same: weight = length times direction."""
    found = dict(named)
    for length, direction in zip(_LENGTHS, _DIRECTIONS, strict=True):
        if length in found and direction in found:
            rows = found.pop(direction).float()
            found["weight"] = rows * (found.pop(length).float() / rows.norm(dim=1, keepdim=True))
    return found


def single_linear(roles: Mapping[str, Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """`weight` (classes, features) and `bias` of the classifier; empty if it is not one linear layer."""
    tensors = roles.get(CLASSIFIER, {})
    named = {name.rpartition(".")[2]: tensor for name, tensor in tensors.items()}
    one = len(named) == len(tensors) and len({name.rpartition(".")[0] for name in tensors}) == 1
    if not one or "weight" not in named or named["weight"].ndim != 2 or set(named) - {"weight", "bias"}:
        return {}
    return named
