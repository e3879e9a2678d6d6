"""A user's own code: modules outside of raykd that add methods, data sources, probes and networks to it.

    plugins.look_in([Path("specs")])        # where such modules may lie, beside what is installed
    plugins.declare(["my_package.losses"])  # `plugins` of a spec; imported when somebody asks what there is
    plugins.modules("raykd.methods")        # these, and the modules of installed entry points, imported
    plugins.codes(["my_package.losses"])    # module -> hash of its code, for a trial's identity

`trainables.methods`, `trainables.data.sources`, `trainables.evaluation.probes` and `trainables.networks.zoo`
take from these modules what is theirs. `luggage` and `unpack` bring them to another process or machine.
"""

from __future__ import annotations

import functools
import importlib
import re
import socket
import sys
import traceback
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

from trainables.core.errors import UserError, first_line
from trainables.core.plugin_code import Unit, code_hash, packed, source_files, unit_of, unpacked

FIELD = "plugins"
METHODS, SOURCES, PROBES, MODELS = "raykd.methods", "raykd.sources", "raykd.probes", "raykd.models"
_OWN = ("raykd", "trainables", "__main__")  # code that is no plug-in
_MODULE = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*")


class _Code(NamedTuple):
    """A unit, as it was when its first module was imported."""

    unit: Unit
    files: dict[str, str]
    hash: str


_folders: list[Path] = []
_declared: dict[str, None] = {}  # modules that specs name, in order
_code: dict[str, _Code] = {}  # unit -> its code


def look_in(folders: Iterable[Path]) -> None:
    """Let modules in these folders be imported, after what is installed.

    They come to `sys.path` with the first module that is asked for, because any folder there may be taken for
    a package that somebody else's code would use if it were installed.
    """
    _folders.extend(dict.fromkeys(f.absolute() for f in folders if f.absolute() not in _folders))


def folders() -> list[Path]:
    """The folders of `look_in`."""
    return list(_folders)


def declare(modules: Iterable[str]) -> None:
    """Make modules known without importing them."""
    _declared.update(dict.fromkeys(modules))


def named(given: object, field: str = FIELD) -> tuple[str, ...]:
    """The names of modules in what a user wrote: a name, a list of them, or a trial's mapping by them."""
    names = (given,) if isinstance(given, str) else given
    if not isinstance(names, list | tuple | Mapping) or not all(isinstance(name, str) for name in names):
        raise UserError(field, "is not a list of modules", value=given, expected="`[my_package.losses]`")
    return tuple(dict.fromkeys(names))


def modules(group: str) -> list[ModuleType]:
    """The declared modules and those of the group's entry points, imported. Raises what `load` raises."""
    named = [entry.module for entry in entry_points(group)]
    return [load(name) for name in dict.fromkeys([*_declared, *named])]


@functools.cache
def entry_points(group: str) -> tuple[metadata.EntryPoint, ...]:
    """What installed packages offer under this name, such as `raykd.methods`."""
    return tuple(metadata.entry_points(group=group))


def is_own(module: str) -> bool:
    """Whether a module is raykd's own, or the program that runs."""
    return module.split(".")[0] in _OWN


def load(module: str, field: str = FIELD) -> ModuleType:
    """The module, imported; its code is remembered as it is now.

    Raises `UserError` at `field` where there is none, and where its import raises anything.
    """
    if not _MODULE.fullmatch(module):
        expected = "the name that one would import, such as `my_package.losses`"
        raise UserError(field, "is not the name of a module", value=module, expected=expected)
    try:
        _remember(module)
        with _no_bytecode():
            return importlib.import_module(module)
    except UserError:  # a class that registers itself, and names its field
        raise
    except ModuleNotFoundError as error:
        if not error.name or not f"{module}.".startswith(f"{error.name}."):
            raise _broken(module, error, field) from None
        where = ", ".join(map(str, _folders))
        raise UserError(
            field,
            f"there is no such module on {socket.gethostname()}",
            value=module,
            expected="one that is installed there" + (f", or that lies in {where}" if where else ""),
        ) from None
    except (Exception, SystemExit) as error:
        raise _broken(module, error, field) from None


@contextmanager
def _no_bytecode() -> Iterator[None]:
    """Leave no `__pycache__` beside a user's files: a check of a spec writes nothing."""
    before, sys.dont_write_bytecode = sys.dont_write_bytecode, True
    try:
        yield
    finally:
        sys.dont_write_bytecode = before


def _broken(module: str, error: BaseException, field: str) -> UserError:
    """The error for a module whose import raised `error`."""
    frames = traceback.extract_tb(error.__traceback__)
    last = frames[-1] if frames else None
    if isinstance(error, SyntaxError) and error.filename:
        where = f" ({error.filename}, line {error.lineno})"
        error = type(error)(error.msg)
    else:
        where = f" ({last.filename}, line {last.lineno})" if last else ""
    said = f"{type(error).__name__}: {first_line(error)}"
    return UserError(field, f"its import fails with {said}{where}", value=module)


def _remember(module: str) -> _Code:
    sys.path.extend(str(folder) for folder in _folders if str(folder) not in sys.path)
    unit = unit_of(module)
    if unit.name not in _code:
        files = source_files(unit)
        _code[unit.name] = _Code(unit, files, code_hash(files))
    return _code[unit.name]


def unit_name(module: str) -> str:
    """The package, or the single module, that a module which was loaded belongs to."""
    return _remember(module).unit.name


def codes(names: Iterable[str]) -> dict[str, str]:
    """Module -> hash of the code that it belongs to, for those of `names` that are not raykd's own."""
    return {name: _remember(name).hash for name in sorted(set(names)) if not is_own(name)}


def unit_hashes(found: Mapping[str, str]) -> dict[str, str]:
    """What `codes` gave, by unit: where in a package a class lies makes no difference to its results.

    A module that is not here, as for a reader of old trials, counts by its first name.
    """
    named = {}
    for module, code in found.items():
        try:
            named[_remember(module).unit.name] = code
        except ImportError:
            named[module.split(".")[0]] = code
    return named


def in_use() -> bool:
    """Whether this process has looked at a module from outside of raykd at all."""
    return bool(_code)


def described(names: Iterable[str]) -> dict[str, dict[str, Any]]:
    """Module -> its `code`, the `file` or folder that it lies in, and the hash of each of its `files`."""
    found = {}
    for name in sorted(set(names)):
        unit, files, code = _remember(name)
        short = {file: digest[:8] for file, digest in files.items()}
        found[name] = {"code": code, "file": str(unit.path), "files": short}
    return found


def require(wanted: Mapping[str, str]) -> None:
    """Import modules, and compare their code with hashes. `UserError` with this machine's name."""
    for name, code in wanted.items():
        load(name)
        here = _remember(name)
        if here.hash != code:
            raise UserError(
                FIELD,
                f"on {socket.gethostname()} its code is another one: {here.unit.path} is {here.hash[:8]}, "
                f"and the sweep has {code[:8]}",
                value=name,
                expected="the same code on every node",
            )


def luggage(wanted: Mapping[str, str]) -> dict[str, Any]:
    """All that another process needs to have these modules; for `unpack`.

    A module that lies in one of the folders, and is not installed, is taken along.
    """
    units = {_remember(name).unit for name in wanted}
    archives = {unit.name: packed(unit) for unit in units if unit.root in _folders}
    return {"modules": dict(wanted), "folders": [str(folder) for folder in _folders], "archives": archives}


def unpack(brought: Mapping[str, Any], folder: Path) -> None:
    """Import what `luggage` packed; its files go below `folder`. Raises what `require` raises."""
    for archive in brought["archives"].values():
        # First, so that a file which has changed since the sweep began is not imported.
        there = str(unpacked(archive, folder))
        if there not in sys.path:
            sys.path.insert(0, there)
    look_in(map(Path, brought["folders"]))
    declare(brought["modules"])
    require(brought["modules"])
