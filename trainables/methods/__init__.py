"""Every distillation method by name. Each is one file in this folder; it is found without being listed.

Methods of a user's own modules (`trainables.core.plugins`) are among them.

load_method("retro")        # the class; `UserError` with the nearest name for an unknown one
methods()                   # name -> class, sorted
"""

from __future__ import annotations

import functools
from types import ModuleType

from trainables.core import plugins
from trainables.core.discovery import modules
from trainables.core.errors import UserError
from trainables.methods import base
from trainables.methods.base import Method, check_class


def methods() -> dict[str, type[Method]]:
    """Every method by name. Raises `UserError` for a file of this folder that is not a complete method.

    What a user's module defines is checked by `added_by`.
    """
    _import_all()
    plugins.modules(plugins.METHODS)
    return dict(sorted(base.registry.items()))


def load_method(name: str, field: str = "method") -> type[Method]:
    """The method called `name`; `UserError` at `field` with the nearest name otherwise."""
    _import_all()
    if name in base.registry:  # without a look at plug-ins, so that a broken one stops only those who use it
        return base.registry[name]
    known = methods()
    if name not in known:
        raise UserError(field, "no such method", value=name, choices=known)
    return known[name]


def added_by(module: ModuleType) -> list[type[Method]]:
    """The registered methods that a plug-in defines in its package, or imports from elsewhere.

    Raises `UserError` for one that is not complete.
    """
    unit, here = plugins.unit_name(module.__name__), vars(module).values()
    found = [
        kind
        for kind in base.registry.values()
        if not plugins.is_own(kind.__module__)
        and (f"{kind.__module__}.".startswith(f"{unit}.") or any(kind is one for one in here))
    ]
    for kind in found:
        check_class(kind)
    return found


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
