"""Projection heads: stacks of a few layers with a description that a file can hold."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from trainables.core.numerics import unit

# A layer as it is written into a checkpoint's metadata: its kind and its constructor's arguments.
Layer = tuple[str, dict[str, Any]]


class L2Normalise(nn.Module):
    """(B, D) -> (B, D), every row of length 1. DINO's head has it before its last layer."""

    def forward(self, rows: Tensor) -> Tensor:
        """Divide each row by its L2 norm."""
        return unit(rows)


def projection_head(in_dim: int, hidden: int, out_dim: int) -> nn.Sequential:
    """Linear(in, hidden)-ReLU-Linear(hidden, out), MoCo-v2's head: (B, in) -> (B, out)."""
    return build_head([linear(in_dim, hidden), ("relu", {}), linear(hidden, out_dim)])


def linear(in_dim: int, out_dim: int, bias: bool = True) -> Layer:
    """The description of a fully connected layer."""
    return ("linear", {"in_features": in_dim, "out_features": out_dim, "bias": bias})


def batch_norm(dim: int, affine: bool = True, eps: float = 1e-5) -> Layer:
    """The description of a batch normalisation; without `affine` it has neither scale nor shift."""
    return ("batch_norm", {"num_features": dim, "affine": affine, "eps": eps})


def build_head(layers: Sequence[Layer]) -> nn.Sequential:
    """The head that `layers` describes; its parameters are named `<position>.weight`, `<position>.bias`."""
    return nn.Sequential(*(_KINDS[kind](**arguments) for kind, arguments in layers))


def describe_head(head: nn.Module) -> list[Layer]:
    """The inverse of `build_head`. Raises `TypeError` for a module that cannot be described."""
    layers: list[Layer] = []
    for module in head if isinstance(head, nn.Sequential) else [head]:
        if isinstance(module, nn.Linear):
            layers.append(linear(module.in_features, module.out_features, module.bias is not None))
        elif isinstance(module, _BatchNorm):  # one that is synchronised over workers, too
            layers.append(batch_norm(module.num_features, module.affine, module.eps))
        elif type(module) in _PLAIN:
            layers.append((_PLAIN[type(module)], {}))
        else:
            raise TypeError(f"a head with a {type(module).__name__} cannot be described")
    return layers


def head_text(layers: Sequence[Layer]) -> str:
    """For people: `Linear(2048, 2048)-BatchNorm-ReLU-Linear(2048, 128)`."""
    return "-".join(_layer_text(kind, arguments) for kind, arguments in layers)


def _layer_text(kind: str, arguments: dict[str, Any]) -> str:
    if kind == "linear":
        return f"Linear({arguments['in_features']}, {arguments['out_features']})"
    if kind == "batch_norm" and not arguments["affine"]:
        return "BatchNorm(not affine)"
    return _TEXTS[kind]


_KINDS: dict[str, type[nn.Module]] = {
    "linear": nn.Linear,
    "batch_norm": nn.BatchNorm1d,
    "relu": nn.ReLU,
    "gelu": nn.GELU,
    "l2_normalise": L2Normalise,
}
_PLAIN = {_KINDS[kind]: kind for kind in ("relu", "gelu", "l2_normalise")}
_TEXTS = {"batch_norm": "BatchNorm", "relu": "ReLU", "gelu": "GELU", "l2_normalise": "L2"}
