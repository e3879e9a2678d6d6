"""Everything public has a docstring, its own or that of the method which it overrides."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parent.parent
MODULES = sorted(
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
    for package in ("trainables", "raykd")
    for path in (ROOT / package).rglob("*.py")
    if path.name != "__main__.py" and path.read_text().strip()
)


def members(module: ModuleType) -> Iterator[tuple[str, Any]]:
    """(name, object) of the functions, classes and methods that are public and defined in a module."""
    for name, value in vars(module).items():
        if name.startswith("_") or getattr(value, "__module__", None) != module.__name__:
            continue
        if inspect.isfunction(value):
            yield name, value
        elif inspect.isclass(value):
            yield name, value
            for inner, method in vars(value).items():
                public = not inner.startswith("_") and not inspect.isclass(method)
                if public and (
                    inspect.isfunction(method) or isinstance(method, (property, classmethod, staticmethod))
                ):
                    yield f"{name}.{inner}", getattr(value, inner)


@pytest.mark.parametrize("name", MODULES)
def test_what_is_public_has_a_docstring(name: str) -> None:
    module = importlib.import_module(name)
    assert module.__doc__, f"{name} has none"
    assert [member for member, value in members(module) if not inspect.getdoc(value)] == []
