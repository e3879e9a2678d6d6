"""What the file of a search space or a study says to its readers: `about`, `paper`, `cost`, `command`.

These keys are optional and change no result. They are no part of a spec, so they are neither in its hash nor
in the ledger, and a sweep may be resumed after they were edited.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import Field

from raykd.spec.document import read_mapping
from trainables.spec.parse import build
from trainables.spec.trial import Spec


class Description(Spec):
    """The keys of a file that are for readers."""

    about: str | None = Field(None, description="what is searched or compared, in one sentence")
    paper: str | None = Field(None, description="the paper that the method or the question comes from")
    cost: str | None = Field(None, description="trials, epochs and time that a run takes")
    command: str | None = Field(None, description="the command lines that run it")


def description_of(path: Path) -> Description:
    """The description in the YAML file at `path`, each value in one line except `command`.

    Without the key `about`, a comment in the file's first line takes its place.
    Raises `UserError` where the file is no mapping or where a value is no text.
    """
    found = _described(read_mapping(path))
    texts = {
        name: " ".join(text.split()) for name in ("about", "paper", "cost") if (text := getattr(found, name))
    }
    if found.about is None:
        with path.open(encoding="utf-8") as lines:
            first = next(lines, "").strip()
        texts |= {"about": first.lstrip("# ")} if first.startswith("#") else {}
    return found.model_copy(update=texts)


def without_description(raw: Mapping[str, Any]) -> dict[str, Any]:
    """`raw` without the keys of `Description`. Raises `UserError` where the value of one is no text."""
    _described(raw)
    return {key: value for key, value in raw.items() if key not in Description.model_fields}


def _described(raw: Mapping[str, Any]) -> Description:
    return build(Description, {key: raw[key] for key in Description.model_fields if key in raw})
