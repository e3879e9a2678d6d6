"""Checkpoints in several files, as the Hugging Face hub has large ones: `model-00001-of-00003.safetensors`.

    parts_of(Path("model.safetensors.index.json"))      # the three files
    parts_of(Path("model-00002-of-00003.safetensors"))  # likewise

Any of the parts, or the index beside them, stands for all of them.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

INDEX = ".index.json"
_PART = re.compile(r"(?P<name>.+)-(?P<at>\d{5})-of-(?P<count>\d{5})(?P<kind>\.(?:safetensors|bin|pt|pth))")
_MOST = 10_000  # parts of a checkpoint


def parts_of(path: Path) -> list[Path] | None:
    """The files that `path` is one of, or the index of, sorted by name; None for a file by itself.

    Whether they exist is not looked at. Raises `ValueError` for an index that names no files beside it.
    """
    if match := _PART.fullmatch(path.name):
        count = min(int(match["count"]), _MOST)
        names = [f"{match['name']}-{at:05}-of-{match['count']}{match['kind']}" for at in range(1, count + 1)]
    elif path.name.endswith(INDEX):
        names = _named_by(path)
    else:
        return None
    return [path.with_name(name) for name in names]


def whole_name(name: str) -> str:
    """The name that the checkpoint would have as one file: `model.safetensors`."""
    match = _PART.fullmatch(name)
    return f"{match['name']}{match['kind']}" if match else name.removesuffix(INDEX)


def _named_by(index: Path) -> list[str]:
    try:
        names = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise ValueError("it is no index of a checkpoint in several files") from None
    if not names or len(names) > _MOST or any(Path(str(name)).name != name for name in names):
        raise ValueError("its index names no files that lie beside it")
    return sorted(names)
