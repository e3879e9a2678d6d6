"""The way back from flat fields to a mapping as a user writes it, to check that flat names lose nothing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from trainables.spec.trial import OptimSpec
from trainables.training.flat_names import put


def unflatten(flat: Mapping[str, Any]) -> dict[str, Any]:
    """The mapping that `resolve` turns into the trial whose flat fields these are."""
    raw: dict[str, Any] = {}
    for name, value in flat.items():
        raw = put(raw, _path(name), value)
    return raw


def _path(flat: str) -> tuple[str, ...]:
    """Where a flat name (without method) is written."""
    if "." in flat:
        return tuple(flat.split("."))
    if flat in ("method", "epochs", "seed"):
        return (flat,)
    return ("optim" if flat in OptimSpec.model_fields else "config", flat)
