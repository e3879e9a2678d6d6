"""How a record is written as one line of JSON, and read back as it was."""

from __future__ import annotations

import json
import math
import os
from typing import Any


def encode(value: Any) -> bytes:
    """One line of ASCII JSON. JSON has no NaN and no infinity: they are written as `{"$float": "nan"}`."""
    return json.dumps(_plain(value), separators=(",", ":"), allow_nan=False).encode("ascii")


def decode(text: bytes) -> Any:
    """What `encode` was given, with tuples as lists.

    Half a surrogate pair becomes U+FFFD, because text with it cannot be written to any file. Python has such
    halves in names of files that are not UTF-8.
    """
    found = json.loads(text, object_hook=_rich if b'"$' in text else None)
    return _writable(found) if b"\\ud" in text.lower() else found


def _plain(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return {"$float": repr(float(value))}
    if value is None or isinstance(value, str | int | float):  # bool is an int
        return value
    if isinstance(value, dict):
        # A key that starts with $ gets a second $, so that it is not read as raykd's own.
        return {f"${k}" if str(k).startswith("$") else str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if hasattr(value, "item"):  # a NumPy scalar
        return _plain(value.item())
    raise TypeError(f"the ledger holds plain JSON, not {value!r}")


def _writable(value: Any) -> Any:
    if isinstance(value, str):
        return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    if isinstance(value, dict):
        return {_writable(name): _writable(inner) for name, inner in value.items()}
    return [_writable(inner) for inner in value] if isinstance(value, list) else value


def _rich(found: dict[str, Any]) -> Any:
    if len(found) == 1 and "$float" in found:
        return float(found["$float"])
    return {k[1:] if k.startswith("$") else k: v for k, v in found.items()}
