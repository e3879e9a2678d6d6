"""The source code of a user's module: which files it is, its hash, and how it travels to another machine.

The code of a module is that of its unit: the top package that it lies in, with all of its files, or the file
alone where it lies in no package. Of a namespace package, which several projects may share, the unit is the
part that has files of its own.
"""

from __future__ import annotations

import hashlib
import importlib.util
import io
import os
import sys
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from trainables.core.errors import UserError

DIGITS = 16  # hex digits of a hash that are kept
_LARGEST = 50_000_000  # bytes of a package that travels


class Unit(NamedTuple):
    """A package or a single module as it lies on the disk."""

    name: str  # dotted
    path: Path  # the package's folder, or the module's file
    root: Path  # what is on `sys.path`; the names of files start here


def unit_of(module: str) -> Unit:
    """The unit of a module, found without importing it. Raises `ModuleNotFoundError` where there is none."""
    parts = module.split(".")
    for count in range(1, len(parts) + 1):
        name = ".".join(parts[:count])
        file = _file(name)
        if file is not None:
            path = file.parent if file.stem == "__init__" else file
            return Unit(name, path, path.parents[count - 1])
    raise ModuleNotFoundError(f"{module} has no file", name=module)


def _file(name: str) -> Path | None:
    """The file of a module, of a package its `__init__`; None for a namespace package."""
    there = getattr(sys.modules.get(name), "__file__", None)
    if there is None:
        found = importlib.util.find_spec(name)
        if found is None:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        there = found.origin if found.has_location else None
    return Path(there).absolute() if there else None


def source_files(unit: Unit) -> dict[str, str]:
    """Name of a source file, from the unit's root -> SHA-256 of its content; sorted by name."""
    files = unit.path.rglob("*.py") if unit.path.is_dir() else [unit.path]
    named = {file.relative_to(unit.root).as_posix(): file for file in files}
    return {name: hashlib.sha256(named[name].read_bytes()).hexdigest() for name in sorted(named)}


def code_hash(files: Mapping[str, str]) -> str:
    """The first hex digits of the SHA-256 over `source_files`."""
    text = "".join(f"{name}\0{digest}\n" for name, digest in files.items())
    return hashlib.sha256(text.encode()).hexdigest()[:DIGITS]


def packed(unit: Unit) -> bytes:
    """A zip archive of the unit's files, without what Python compiled. `UserError` if that is too large."""
    written, size = io.BytesIO(), 0
    with zipfile.ZipFile(written, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in _travelling(unit):
            size += file.stat().st_size
            if size > _LARGEST:
                raise UserError(
                    "plugins",
                    f"{unit.path} holds over {_LARGEST // 10**6} MB, too much to be sent to every worker",
                    value=unit.name,
                    expected="a folder with code alone, or a package that is installed on every node",
                )
            archive.write(file, file.relative_to(unit.root).as_posix())
    return written.getvalue()


def _travelling(unit: Unit) -> Iterator[Path]:
    if not unit.path.is_dir():
        yield unit.path
        return
    for folder, inner, names in os.walk(unit.path):
        inner[:] = sorted(name for name in inner if not name.startswith((".", "__pycache__")))
        yield from (Path(folder, name) for name in sorted(names) if not name.endswith(".pyc"))


def unpacked(archive: bytes, folder: Path) -> Path:
    """The folder, named by the archive's hash within `folder`, that holds its files now."""
    there = folder / hashlib.sha256(archive).hexdigest()[:DIGITS]
    with zipfile.ZipFile(io.BytesIO(archive)) as files:
        files.extractall(there)
    return there
