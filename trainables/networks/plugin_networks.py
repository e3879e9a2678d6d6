"""Networks of a user's own: `my_package:make_net`, or the name of an entry point in `raykd.models`.

`make_net(**options)` returns a module that turns images (B, 3, H, W) into features (B, D). With a method
`forward_features`, as timm's models have it, that returns the map (B, C, h, w), it has a feature map, too.
This module imports no torch, because `resolve` asks it which code a trial uses.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from trainables.core import plugins
from trainables.core.errors import UserError, first_line

if TYPE_CHECKING:
    from torch import nn

_PLACE = re.compile(r"([A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*):([A-Za-z_]\w*)")


def place_of(arch: str) -> tuple[str, str] | None:
    """(module, callable) of a user's network; None for the name of another architecture.

    A name that timm has, too, is timm's.
    """
    entry = next((entry for entry in plugins.entry_points(plugins.MODELS) if entry.name == arch), None)
    if entry is not None:
        import timm

        arch = arch if timm.is_model(arch) else entry.value
    found = _PLACE.fullmatch(arch)
    return (found[1], found[2]) if found else None


def plugins_of(arch: str) -> list[str]:
    """The module that a user's network comes from; [] for other architectures."""
    place = place_of(arch)
    return [place[0]] if place else []


def find(arch: str, field: str) -> Callable[..., Any]:
    """What makes a user's network. Raises `UserError` at `field`.arch where it is not there."""
    place = place_of(arch)
    assert place is not None, "only for names that are such a place"
    where = f"{field}.arch"
    maker: Any = getattr(plugins.load(place[0], where), place[1], None)
    if not callable(maker):
        problem = "is nothing that can be called" if maker is not None else f"{place[0]} has no {place[1]!r}"
        raise UserError(where, problem, value=arch, expected="a function or a class that makes the network")
    made: Callable[..., Any] = maker
    return made


def create(arch: str, options: Mapping[str, Any], field: str) -> nn.Module:
    """The network. Raises `UserError` at `field` where it cannot be made, or is no module."""
    from torch import nn

    maker = find(arch, field)
    try:
        model = maker(**options)
    except Exception as error:
        where = f"{field}.options" if options else f"{field}.arch"
        problem = f"{arch} cannot be built: {type(error).__name__}: {first_line(error)}"
        raise UserError(where, problem, value=dict(options) or arch) from None
    if not isinstance(model, nn.Module) or next(model.parameters(), None) is None:
        problem = "does not return a torch.nn.Module with parameters"
        expected = "images (B, 3, H, W) -> features (B, D)"
        raise UserError(f"{field}.arch", problem, value=arch, expected=expected)
    return model


def check_features(arch: str, features: Any, field: str) -> None:
    """Raise `UserError` at `field`.arch for features of two images that are not of shape (2, D)."""
    shape = getattr(features, "shape", None)
    if shape is None or len(shape) != 2 or shape[0] != 2:
        given = f"a tensor of shape {tuple(shape)}" if shape is not None else f"a {type(features).__name__}"
        problem = f"gives {given} for two images"
        expected = "features of shape (2, D): pooled, and without a classifier"
        raise UserError(f"{field}.arch", problem, value=arch, expected=expected)
