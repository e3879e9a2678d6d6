"""What may propose configurations: every sampler by name.

A sampler is a class of one of the files in this folder: its settings, and how Optuna's sampler is made with
them. To add one, write a file with a `SamplerSpec`: it is found by itself.
"""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BeforeValidator, SerializeAsAny

from raykd.spec.samplers.base import SamplerSpec
from raykd.spec.samplers.grid import Grid
from raykd.spec.samplers.tpe import TPE
from trainables.core.discovery import by_name, classes
from trainables.core.errors import UserError
from trainables.spec.parse import as_mapping, build

__all__ = ["SAMPLERS", "TPE", "AnySampler", "Grid", "SamplerSpec", "parse_sampler"]

SAMPLERS: dict[str, type[SamplerSpec]] = by_name(
    classes(__name__, SamplerSpec),  # type: ignore[type-abstract]  # of which it returns those that are not
    lambda kind: str(kind.model_fields["name"].default),
)


def parse_sampler(raw: Any) -> SamplerSpec:
    """The sampler that `{name: tpe, …}` describes; `UserError` with a field of that section otherwise."""
    if isinstance(raw, SamplerSpec):
        return raw
    mapping = as_mapping(raw, "")
    name = mapping.get("name", "tpe")
    if not isinstance(name, str) or name not in SAMPLERS:
        raise UserError("name", "no such sampler", value=name, choices=SAMPLERS)
    return build(SAMPLERS[name], {**mapping, "name": name})


AnySampler = Annotated[SerializeAsAny[SamplerSpec], BeforeValidator(parse_sampler)]
