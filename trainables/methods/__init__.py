"""Every distillation method by name: each is one file in this folder, found by itself.

load_method("retro")        # the class; `UserError` with the nearest name for an unknown one
methods()                   # name -> class, sorted
"""

from __future__ import annotations

import functools
import importlib
import pkgutil

from trainables.core.errors import UserError
from trainables.methods import base
from trainables.methods.base import Method


def methods() -> dict[str, type[Method]]:
    """Every method by name."""
    _import_all()
    return dict(sorted(base.registry.items()))


def load_method(name: str, field: str = "method") -> type[Method]:
    """The method called `name`; `UserError` at `field` with the nearest name otherwise."""
    known = methods()
    if name not in known:
        raise UserError(field, "no such method", value=name, choices=known)
    return known[name]


@functools.cache
def _import_all() -> None:
    for module in pkgutil.iter_modules(__path__):
        importlib.import_module(f"{__name__}.{module.name}")
