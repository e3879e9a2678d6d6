"""Finds what the files of a folder add to raykd: a file that is put there is enough, nothing else names it.

A folder that is searched holds `base.py`, which says what a file has to offer, and otherwise only such files.
What several of them share lies in a folder below, which is not searched.
"""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from collections.abc import Callable, Iterable, Mapping
from types import ModuleType
from typing import TypeVar

from trainables.core.errors import UserError

T = TypeVar("T")


def modules(package: str) -> list[ModuleType]:
    """Every file of a package but `base.py`, imported: by its `ORDER` (0 where it has none), then by name.

    An error while one is imported is raised as it is: the traceback names the file.
    """
    folder = importlib.import_module(package).__path__
    names = [found.name for found in pkgutil.iter_modules(folder) if not found.ispkg and found.name != "base"]
    found = [importlib.import_module(f"{package}.{name}") for name in sorted(names)]
    return sorted(found, key=lambda module: getattr(module, "ORDER", 0))


def classes(package: str, base: type[T]) -> list[type[T]]:
    """Every class below `base` that can be instantiated and that a file of the package defines.

    `TypeError` for a file that defines none: it would be passed over without a word.
    """
    found: list[type[T]] = []
    for module in modules(package):
        own = [
            kind
            for kind in vars(module).values()
            if isinstance(kind, type) and issubclass(kind, base) and kind.__module__ == module.__name__
        ]
        usable = [kind for kind in own if not inspect.isabstract(kind)]
        if not usable:
            lacking = sorted(name for kind in own for name in getattr(kind, "__abstractmethods__", ()))
            still = f"; its class lacks {', '.join(lacking)}" if lacking else ""
            raise TypeError(f"{module.__file__} defines no {base.__name__}{still}")
        found += usable
    return found


def rows(package: str, table: str, kind: type[T]) -> list[T]:
    """What the files of the package list under the name `table`, file by file.

    `TypeError` for a file without that table, or with something else in it.
    """
    found: list[T] = []
    for module in modules(package):
        own = getattr(module, table, ())
        if not own or not all(isinstance(row, kind) for row in own):
            raise TypeError(f"{module.__file__} has no `{table} = ({kind.__name__}(…),)`")
        found += own
    return found


def by_name(found: Iterable[T], name: Callable[[T], str]) -> dict[str, T]:
    """`found` by name, in their order. `TypeError` for two of one name."""
    named: dict[str, T] = {}
    for one in found:
        other = named.setdefault(name(one), one)
        if other is not one:
            files = " and ".join(getattr(of, "__module__", repr(of)) for of in (other, one))
            raise TypeError(f"{files} both define {name(one)!r}")
    return named


def added(
    own: Mapping[str, T], found: Mapping[ModuleType, Iterable[T]], name: Callable[[T], str]
) -> dict[str, T]:
    """`own` and what plug-ins add, by name. Raises `UserError` for a name that is taken."""
    named = dict(own)
    for module, ones in found.items():
        for one in ones:
            other = named.setdefault(name(one), one)
            if other is not one:
                problem, value = f"{getattr(other, '__module__', other)} has this name already", name(one)
                raise UserError(f"{module.__name__}", problem, value=value, expected="another name")
    return named
