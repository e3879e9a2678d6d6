"""YAML as people expect it: `1e-3` is a number, `no` is a word, a name may stand only once.

PyYAML reads YAML 1.1: `1e-3` is text, `no` is false, `010` is 8, and of two equal names the second wins
without a word. This loader follows the core schema of YAML 1.2. Every mistake becomes a `UserError` with its
line.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Hashable, Mapping
from pathlib import Path
from typing import Any

import yaml

from trainables.core.errors import UserError, first_line, nearest
from trainables.core.files import expanded
from trainables.spec.parse import as_mapping

_LARGEST = 2**63  # what Arrow, NumPy and torch count with
_LONGEST_NUMBER = 70  # digits
_LONGEST = 10_000_000  # characters of a file, because a pipe may never end
_MOST_VALUES = 100_000  # in one file; those that anchors repeat count each time


class _Loader(yaml.SafeLoader):
    """SafeLoader with YAML 1.2's scalars and without duplicate names."""

    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012  (PyYAML's own way to configure a loader)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: dict[Any, int] = {}
        for key_node, _ in node.value:
            if key_node.tag == "tag:yaml.org,2002:merge":
                continue
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, Hashable):
                raise yaml.constructor.ConstructorError(
                    None, None, "a name must be text", key_node.start_mark
                )
            if key in seen:
                problem = f"{key!r} stands here and in line {seen[key]}: a name may stand only once"
                raise yaml.constructor.ConstructorError(None, None, problem, key_node.start_mark)
            seen[key] = key_node.start_mark.line + 1
        return super().construct_mapping(node, deep)


class _Dumper(yaml.SafeDumper):
    """SafeDumper that also quotes the text which only YAML 1.2 reads as a number, such as `1E5`."""


def _integer(loader: _Loader, node: yaml.ScalarNode) -> int:
    """A decimal, octal or hexadecimal number; an error for one that does not fit 64 bits."""
    text = loader.construct_scalar(node)
    number = int(text, {"0o": 8, "0x": 16}.get(text[:2], 10)) if len(text) <= _LONGEST_NUMBER else _LARGEST
    if abs(number) >= _LARGEST:
        raise yaml.constructor.ConstructorError(
            None, None, f"a whole number of {len(text)} digits", node.start_mark
        )
    return number


for _tag, _pattern, _first in (
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("bool", r"true|True|TRUE|false|False|FALSE", list("tTfF")),
    ("int", r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+", list("-+0123456789")),
    (
        "float",
        r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)",
        list("-+.0123456789"),
    ),
    ("merge", r"<<", ["<"]),
):
    for _side in (_Loader, _Dumper):
        _side.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(rf"^(?:{_pattern})$"), _first)
_Loader.add_constructor("tag:yaml.org,2002:int", _integer)


def parse_yaml(text: str, source: str) -> Any:
    """The value that `text` holds; `source` (a file, or `--set gamma`) names it in errors.

    Raises `UserError` for text that is no YAML, and for too many values.
    """
    try:
        value = yaml.load(text, Loader=_Loader)  # a SafeLoader
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{source}, line {mark.line + 1}" if mark else source
        problem = getattr(error, "problem", None) or first_line(error)
        raise UserError(where, f"not valid YAML: {problem}") from None
    except RecursionError:
        raise UserError(source, "not valid YAML: nested too deeply") from None
    if _size(value, source, {}) > _MOST_VALUES:
        raise UserError(source, f"holds more than {_MOST_VALUES:,} values, its anchors written out")
    return value


def write_yaml(value: Any) -> str:
    """Plain `value` as YAML that `parse_yaml`, and any other reader of YAML, reads back as the same value."""
    return yaml.dump(value, Dumper=_Dumper, sort_keys=False)


def read_yaml(path: Path) -> Any:
    """The value in the YAML file at `path`. Raises `UserError` where it cannot be read."""
    try:
        with path.open(encoding="utf-8") as file:
            text = file.read(_LONGEST + 1)
    except UnicodeDecodeError:
        raise UserError(str(path), "is not a text file in UTF-8") from None
    except OSError as error:
        raise UserError(str(path), f"cannot be read: {error.strerror}") from None
    if len(text) > _LONGEST:
        raise UserError(str(path), f"holds more than {_LONGEST:,} characters", expected="a search space")
    return parse_yaml(text, str(path))


def find_document(source: str | Path, known: Mapping[str, Path], field: str, noun: str) -> Path:
    """The file that `source` names: a path, `-` for standard input, a pipe, or one of `known` by its name.

    Where it names none, raises `UserError` about `field`; `noun` is what the file should hold.
    """
    if str(source) == "-":
        return Path("/dev/stdin")
    path = expanded(source)
    if path.is_file() or path.is_fifo():
        return path
    if str(source) in known:
        return known[str(source)]
    problem = "is a folder" if path.is_dir() else f"no such file or {noun}"
    raise UserError(field, problem, value=str(source), choices=[*known, *nearest_files(path)])


def named_by_file(path: Path) -> dict[str, Any]:
    """`{name: …}`, the name of the file without its ending; empty for standard input and pipes."""
    return {"name": path.stem} if path.is_file() and not path.is_relative_to("/dev") else {}


def nearest_files(path: Path) -> list[str]:
    """The YAML file beside a missing `path` whose name is nearest, as one would type it; or none."""
    with contextlib.suppress(OSError, ValueError):
        names = [file.name for file in path.parent.iterdir() if file.suffix in (".yaml", ".yml")]
        near = nearest(path.name, names)
        return [str(path.with_name(near))] if near else []
    return []


def read_mapping(path: Path) -> dict[str, Any]:
    """The mapping in the YAML file at `path`. Raises `UserError` where it is empty or no mapping."""
    raw = as_mapping(read_yaml(path), str(path))
    if not raw:
        raise UserError(str(path), "is empty", expected="`name: value` lines; `raykd list spaces` names some")
    return raw


def _size(value: Any, source: str, sizes: dict[int, int | None]) -> int:
    """How many values there are in `value`, itself included; `sizes` remembers what was counted before."""
    if not isinstance(value, dict | list):
        return 1
    if id(value) not in sizes:
        sizes[id(value)] = None  # being counted
        inner = value.values() if isinstance(value, dict) else value
        sizes[id(value)] = 1 + sum(_size(each, source, sizes) for each in inner)
    size = sizes[id(value)]
    if size is None:
        raise UserError(source, "not valid YAML here: a value contains itself")
    return size
