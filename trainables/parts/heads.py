"""Projection heads: stacks of few layers that can be described in a file and built again from it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import nn

# A layer as it is written into a checkpoint's metadata: its kind and the arguments that shape it.
Layer = tuple[str, dict[str, Any]]


def projection_head(in_dim: int, hidden: int, out_dim: int) -> nn.Sequential:
    """Linear(in, hidden)-ReLU-Linear(hidden, out), MoCo-v2's head: (B, in) -> (B, out)."""
    return build_head([linear(in_dim, hidden), ("relu", {}), linear(hidden, out_dim)])


def linear(in_dim: int, out_dim: int, bias: bool = True) -> Layer:
    """The description of a fully connected layer."""
    return ("linear", {"in_features": in_dim, "out_features": out_dim, "bias": bias})


def build_head(layers: Sequence[Layer]) -> nn.Sequential:
    """The head that `layers` describes; its parameters are named `<position>.weight`, `<position>.bias`."""
    return nn.Sequential(*(_KINDS[kind](**arguments) for kind, arguments in layers))


def describe_head(head: nn.Module) -> list[Layer]:
    """The inverse of `build_head`. `TypeError` for a module that no description can bring back."""
    layers: list[Layer] = []
    for module in head if isinstance(head, nn.Sequential) else [head]:
        if isinstance(module, nn.Linear):
            layers.append(linear(module.in_features, module.out_features, module.bias is not None))
        elif isinstance(module, nn.ReLU):
            layers.append(("relu", {}))
        else:
            raise TypeError(f"a head with a {type(module).__name__} cannot be described")
    return layers


def head_text(layers: Sequence[Layer]) -> str:
    """For people: `Linear(2048, 2048)-ReLU-Linear(2048, 128)`."""
    return "-".join(
        f"Linear({arguments['in_features']}, {arguments['out_features']})" if kind == "linear" else "ReLU"
        for kind, arguments in layers
    )


_KINDS: dict[str, type[nn.Module]] = {"linear": nn.Linear, "relu": nn.ReLU}
