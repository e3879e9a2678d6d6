"""Errors that are not bugs: a user's mistake, a trial whose numbers went bad, a sweep that cannot go on."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Any

_UNSET: Any = object()


class UserError(ValueError):
    """Something the user wrote cannot work. Shown as one message, without a traceback.

    `field` is the path in the user's file (`axes.gamma.log`), `problem` what is wrong with `value`,
    `expected` what would be right; with `choices` the nearest right word is suggested.
    """

    def __init__(
        self,
        field: str,
        problem: str,
        *,
        value: Any = _UNSET,
        expected: str | None = None,
        choices: Iterable[str] = (),
    ) -> None:
        known = sorted(choices)
        parts = [f"{field}: {problem}"]
        if value is not _UNSET:
            parts[0] += f" (got {value!r})"
        if expected:
            parts.append(f"Expected {expected}.")
        if known:
            near = nearest(str(value), known) if value is not _UNSET else None
            if near:
                parts.append(f"Did you mean {near!r}?")
            parts.append("Known: " + ", ".join(known) + ".")
        self.field = field
        super().__init__(" ".join(p if p.endswith((".", "?")) else p + "." for p in parts))

    def __reduce__(self) -> tuple[Any, ...]:
        # The constructor's arguments are gone; rebuild from the message so that it survives pickling.
        return (_rebuild, (type(self), self.field, str(self)))


def _rebuild(cls: type[UserError], field: str, message: str) -> UserError:
    error = cls.__new__(cls)
    ValueError.__init__(error, message)
    error.field = field
    return error


class TrialFailed(RuntimeError):
    """This trial cannot go on (a loss that is not finite, say); the sweep can."""


class SweepFailed(RuntimeError):
    """The sweep cannot go on, and not because of what the user wrote. One message; `resume` may help."""


class StorageLost(SweepFailed):
    """The storage stayed full, or did not answer, for longer than the patience. No trial's fault."""


def nearest(word: str, choices: Iterable[str]) -> str | None:
    """The choice that `word` was probably meant to be, or None."""
    lowered = {c.lower(): c for c in choices}
    found = difflib.get_close_matches(word.lower(), list(lowered), n=1, cutoff=0.55)
    return lowered[found[0]] if found else None
