"""A check of a method, and what checks share."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any, Literal, NamedTuple, get_args, get_origin

from torch import nn

from trainables.core.errors import UserError
from trainables.methods import load_method
from trainables.methods.base import TAUGHT


class NotKept(Exception):
    """A method does not do what every method must do."""


class Check(NamedTuple):
    """One thing that a method must do."""

    says: str  # in words
    run: Callable[[str], None]  # given the method's name; raises `NotKept`, or what the method raises
    applies: Callable[[str], bool] = lambda name: True


def hold(kept: object, broken: str) -> None:
    """Raise `NotKept` unless `kept` is true; `broken` says what is wrong."""
    if not kept:
        raise NotKept(broken)


def refused(call: Callable[[], object], field: str, words: str) -> None:
    """Raise `NotKept` unless `call` is refused by a `UserError` about `field` that says `words`."""
    try:
        call()
    except UserError as error:
        right = error.field == field and words in str(error)
        hold(right, f"is refused by `{error}`, and not at {field} with `{words}`")
        return
    raise NotKept(f"is not refused at {field} with `{words}`")


def taught(name: str) -> bool:
    """Whether a method learns from a teacher."""
    return bool(load_method(name).needs & TAUGHT)


def choices(name: str) -> list[tuple[str, Any]]:
    """(field, choice) for every field of a method that has a list of choices."""
    found: list[tuple[str, Any]] = []
    for field, info in load_method(name).Config.model_fields.items():
        if info.annotation is bool:
            found += [(field, choice) for choice in (False, True)]
        elif get_origin(info.annotation) is Literal:
            found += [(field, choice) for choice in get_args(info.annotation)]
    return found


def settings(name: str) -> list[dict[str, Any]]:
    """The default settings, and for every choice of every field the settings with that choice."""
    return [{}, *({field: choice} for field, choice in choices(name))]


def submodules(method: nn.Module, kind: type[nn.Module]) -> list[Any]:
    """All submodules of a type."""
    return [module for module in method.modules() if isinstance(module, kind)]


def fingerprint(module: nn.Module) -> str:
    """Hash of all bits of the module's state."""
    digest = hashlib.sha256()
    for key, value in sorted(module.state_dict().items()):
        digest.update(key.encode() + value.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()
