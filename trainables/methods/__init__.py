"""Every distillation method by name. Each is one file in this folder; it is found without being listed.

load_method("retro")        # the class; `UserError` with the nearest name for an unknown one
methods()                   # name -> class, sorted
"""

from __future__ import annotations

import functools

from trainables.core.discovery import modules
from trainables.core.errors import UserError
from trainables.methods import base
from trainables.methods.base import Method, check_class


def methods() -> dict[str, type[Method]]:
    """Every method by name. Raises `UserError` for a file of this folder that is not a complete method."""
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
    """Import every file of this folder and check the method that it defines."""
    for module in modules(__name__):
        found = [kind for kind in base.registry.values() if kind.__module__ == module.__name__]
        if not found:
            expected = 'a subclass of `Method` with `name = "..."`'
            raise UserError(module.__name__, "defines no method", expected=expected)
        for kind in found:
            check_class(kind)
