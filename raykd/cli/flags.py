"""What is said of a verb beside it, for those who start it: `@flags(drives=True)` below `@verbs.command`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

V = TypeVar("V", bound=Callable[..., Any])


class Flags(NamedTuple):
    """What a verb does to the process that it runs in."""

    loads_torch: bool = False  # so a limit on the address space that is too small for torch is refused first
    drives: bool = False  # drives a sweep: under `ray submit` it outlives the connection


def flags(*, loads_torch: bool = False, drives: bool = False) -> Callable[[V], V]:
    """Attach flags to the function of a verb."""

    def attach(verb: V) -> V:
        verb.flags = Flags(loads_torch, drives)  # type: ignore[attr-defined]
        return verb

    return attach


def flags_of(verb: Callable[..., Any] | None) -> Flags:
    """Those attached to the function of a verb; all are False where there are none."""
    found = getattr(verb, "flags", Flags())
    assert isinstance(found, Flags)
    return found
