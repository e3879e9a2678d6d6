"""timm without Weights & Biases, which it imports where that is installed.

It does so for a function that raykd never calls. The import takes time in each process of a sweep, and makes
temporary folders, which a process that is killed leaves behind.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from types import ModuleType

_IMPORTS_IT = "timm.utils.summary"
_UNWANTED = "wandb"


class _Loader(SourceFileLoader):
    def exec_module(self, module: ModuleType) -> None:
        with _missing(_UNWANTED):
            super().exec_module(module)


class _Finder(MetaPathFinder):
    """Finds timm's module that would import it, and nothing else."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """The module's spec with a loader for which the package is not there."""
        spec = PathFinder.find_spec(fullname, path) if fullname == _IMPORTS_IT else None
        if spec is not None and spec.origin is not None:
            spec.loader = _Loader(fullname, spec.origin)
        return spec


@contextmanager
def _missing(name: str) -> Iterator[None]:
    """While this lasts, an import of `name` raises `ImportError`, unless it was imported before."""
    if name in sys.modules:
        yield
        return
    sys.modules[name] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        del sys.modules[name]


def keep_timm_alone() -> None:
    """Let timm be imported so from now on. Further calls change nothing."""
    if not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Finder())
