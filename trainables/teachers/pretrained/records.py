"""Reading the records that training scripts save beside the weights, without running code of the file.

torch's safe reader (`weights_only=True`) asks for every class that a file names. Here each name is mapped to
a class or function of this module or of Python that only holds data. So the library that wrote the record
need not be installed, and none of its code is run.
"""

from __future__ import annotations

import argparse
import datetime
import decimal
import fractions
import pathlib
import re
import types
import uuid
from collections import Counter
from typing import Any

import numpy as np


class Record:
    """Replaces a class of a settings library: `Record(...)` is a mapping of the object's fields.

    The mapping is a `Counter`, the only mapping that torch's reader fills both as a dictionary and with the
    attributes of an object.
    """

    def __new__(cls, *values: object) -> Counter[Any]:  # type: ignore[misc]
        """Empty, or a copy of the one mapping in `values`; the reader adds the rest."""
        made: Counter[Any] = Counter()
        if len(values) == 1 and isinstance(values[0], dict):
            made.update(values[0])
        return made


class Opaque:
    """Replaces an object whose state does not concern the weights, such as a random generator."""

    def __init__(self, *_: object) -> None:
        pass

    def __setstate__(self, state: object) -> None:
        pass


def mapping(*_factory: object) -> dict[Any, Any]:
    """Replaces `defaultdict(factory)`: the reader fills only plain dictionaries."""
    return {}


def sequence(values: object = (), *_: object) -> list[Any]:
    """Replaces `deque(values, length)`: the reader fills only plain lists."""
    return list(values) if isinstance(values, list | tuple) else []


_NUMBERS = re.compile(r"(?:[biuf][1248]|[Vc](?:8|16)|f16|[SU]\d{1,4})")


class NumpyType:
    """Replaces `numpy.dtype`: its code (`f8`) and byte order."""

    def __init__(self, code: object = "", *_: object) -> None:
        self.code = code if isinstance(code, str) else ""
        self.order = "<"

    def __setstate__(self, state: object) -> None:
        if isinstance(state, tuple) and len(state) > 1 and state[1] in ("<", ">", "|"):
            self.order = state[1]

    def plain(self) -> np.dtype[Any] | None:
        """numpy's type for plain numbers or text; None for objects and records."""
        known = _NUMBERS.fullmatch(self.code) and not self.code.startswith("V")
        return np.dtype(self.order + self.code) if known else None


def numpy_scalar(kind: object, data: object = b"", *_: object) -> Any:
    """Replaces `numpy.core.multiarray.scalar`; None if it is not a plain number or text."""
    plain = kind.plain() if isinstance(kind, NumpyType) else None
    if plain is None or not isinstance(data, bytes) or plain.itemsize != len(data):
        return None
    return np.frombuffer(data, plain, 1)[0]


class NumpyArray:
    """Replaces `numpy.ndarray`: `value` is the array, or None for objects and records."""

    def __init__(self, *_: object) -> None:
        self.value: np.ndarray[Any, Any] | None = None

    def __setstate__(self, state: object) -> None:
        if not (isinstance(state, tuple) and len(state) == 5):
            return
        _, shape, kind, by_columns, data = state
        plain = kind.plain() if isinstance(kind, NumpyType) else None
        if plain is not None and isinstance(data, bytes):
            flat = np.frombuffer(data, plain)
            self.value = flat.reshape(shape, order="F" if by_columns else "C").copy()


def numpy_buffer(data: object = b"", kind: object = None, shape: Any = (), order: object = "C") -> NumpyArray:
    """Replaces `numpy.core.numeric._frombuffer`."""
    made = NumpyArray()
    made.__setstate__((1, shape, kind, order == "F", bytes(data) if isinstance(data, bytearray) else data))
    return made


_NUMPY: list[tuple[Any, str]] = [(NumpyType, "numpy.dtype"), (Opaque, "numpy.ndarray")]
for _core in ("numpy.core", "numpy._core"):
    _NUMPY += [(numpy_scalar, f"{_core}.multiarray.scalar"), (NumpyArray, f"{_core}.multiarray._reconstruct")]
    _NUMPY += [(numpy_buffer, f"{_core}.numeric._frombuffer")]
_PATHS: list[tuple[Any, str]] = []
for _module in ("pathlib", "pathlib._local"):
    _PATHS += [(kind, f"{_module}.{kind.__name__}") for kind in (pathlib.PosixPath, pathlib.PurePosixPath)]
    _PATHS += [(pathlib.PureWindowsPath, f"{_module}.{name}") for name in ("WindowsPath", "PureWindowsPath")]

# Types that are stored as values (`type=int` of a command line option), and small sequences.
_BUILTINS = (
    "list", "dict", "int", "float", "str", "bool", "tuple", "object", "range", "slice", "Ellipsis",
    "NotImplemented", "type", "bytes",
)  # fmt: skip
# (replacement, name in the file), or one of Python's own classes that replaces itself.
RECORDS: list[Any] = [
    argparse.Namespace,
    types.SimpleNamespace,
    datetime.datetime,
    datetime.date,
    datetime.time,
    datetime.timedelta,
    datetime.timezone,
    decimal.Decimal,
    fractions.Fraction,
    uuid.UUID,
    frozenset,
    (mapping, "collections.defaultdict"),
    (str, "torch.torch_version.TorchVersion"),
    (sequence, "collections.deque"),
    *((Record, f"builtins.{name}") for name in _BUILTINS),
    *_PATHS,
    *_NUMPY,
]

# Libraries with objects for settings or the state of an optimizer. Each object becomes a `Record`.
_SETTINGS = re.compile(
    r"(omegaconf|yacs|easydict|addict|munch|box|ml_collections|hydra|fvcore\.common|iopath|attr|attrs"
    r"|mmengine|mmcv|pytorch_lightning|lightning|lightning_fabric|lightning_utilities|wandb|typing|enum"
    r"|torch\.optim|torch\.amp|torch\.cuda\.amp|timm\.(optim|scheduler)|transformers\.training_args)\."
)


def record_for(name: str) -> tuple[Any, str] | None:
    """(replacement, `name`) of the object `name` (`omegaconf.dictconfig.DictConfig`); None if unknown."""
    if name.startswith("numpy."):
        return Opaque, name
    return (Record, name) if _SETTINGS.match(name) else None
