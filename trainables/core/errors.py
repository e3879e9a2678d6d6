"""Errors that are not bugs: a user's mistake, a trial whose numbers went bad, a sweep that cannot go on."""

from __future__ import annotations

import difflib
import functools
import pickle
from collections.abc import Iterable
from enum import Enum
from typing import Any

from trainables.core.other_words import field_for

WHOLE_FILE = "the file"  # the field of an error about everything that the user wrote


class NoValue(Enum):
    """The type of `NO_VALUE`, which stays one object when it is pickled."""

    NO_VALUE = "no value"


NO_VALUE = NoValue.NO_VALUE  # None is a value that a user can write


class UserError(ValueError):
    """Something the user wrote cannot work. Shown as one message, without a traceback.

    Its attributes are the arguments:

    - `field`: the path in the user's file (`axes.gamma.log`), an option or a file's name
    - `problem`: what is wrong there
    - `value`: what the user wrote; `NO_VALUE` if that does not help
    - `expected`: what would be right
    - `choices`: the words that are allowed, sorted; the one nearest to `value` is suggested
    - `hints`: more sentences, which stand last

    `str()` is the whole text. All attributes survive pickling; a `value` that cannot be pickled arrives as a
    `Shown`.
    """

    def __init__(
        self,
        field: str,
        problem: str,
        *,
        value: Any = NO_VALUE,
        expected: str | None = None,
        choices: Iterable[str] = (),
        hints: Iterable[str] = (),
    ) -> None:
        self.field, self.problem, self.value, self.expected = field, problem, value, expected
        self.choices, self.hints = tuple(sorted(choices)), tuple(hints)
        super().__init__(f"{field}: {self.message}")

    @property
    def message(self) -> str:
        """The text without the field: `no such choice (got 'sgd2'). Did you mean 'sgd'? Known: adam, sgd.`"""
        given = self.value is not NO_VALUE
        sentences = [f"{self.problem} (got {self.value!r})" if given else self.problem]
        if self.expected:
            sentences.append(f"Expected {self.expected}.")
        if self.choices:
            near = nearest(str(self.value), self.choices) if given else None
            if near:
                sentences.append(f"Did you mean {near!r}?")
            sentences.append("Known: " + ", ".join(self.choices) + ".")
        sentences += self.hints
        return " ".join(text if text.endswith((".", "?")) else text + "." for text in sentences)

    def at(self, field: str, **changes: Any) -> UserError:
        """The same error about another field. `changes` are arguments of the constructor that also differ."""
        return UserError(**{**self._arguments(), "field": field, **changes})

    def under(self, section: str) -> UserError:
        """The same error, its field within `section`: `lr` under `base` is `base.lr`."""
        if not section:
            return self
        return self.at(f"{section}.{self.field}" if self.field not in ("", WHOLE_FILE) else section)

    def with_hint(self, sentence: str) -> UserError:
        """The same error with one more sentence."""
        return self.at(self.field, hints=(*self.hints, sentence))

    def _arguments(self) -> dict[str, Any]:
        names = ("field", "problem", "value", "expected", "choices", "hints")
        return {name: getattr(self, name) for name in names}

    def __reduce__(self) -> tuple[Any, ...]:
        # The error must always arrive, whatever its value is.
        value = self.value if is_picklable(self.value) else Shown(self.value)
        return functools.partial(UserError, **{**self._arguments(), "value": value}), ()


class Shown:
    """What is left of a value that cannot be pickled: its two texts."""

    def __init__(self, value: Any) -> None:
        self._repr, self._str = repr(value), str(value)

    def __repr__(self) -> str:
        return self._repr

    def __str__(self) -> str:
        return self._str


def is_picklable(value: Any) -> bool:
    """Whether `value` can be sent to another process."""
    try:
        pickle.loads(pickle.dumps(value))
    except Exception:
        return False
    return True


class TrialFailed(RuntimeError):
    """This trial cannot go on (a loss that is not finite, say); the sweep can."""


class SweepFailed(RuntimeError):
    """The sweep cannot go on, and not because of what the user wrote. One message; `resume` may help."""


class StorageLost(SweepFailed):
    """The storage stayed full, or did not answer, for longer than the patience. No trial's fault."""


def nearest(word: str, choices: Iterable[str]) -> str | None:
    """The choice that `word` was probably meant to be, or None."""
    choices = tuple(choices)
    known = (field_for(word) or "").rpartition(".")[2]
    if known in choices:
        return known
    lowered = {c.lower(): c for c in choices}
    found = difflib.get_close_matches(word.lower(), list(lowered), n=1, cutoff=0.55)
    return lowered[found[0]] if found else None


def first_line(error: BaseException) -> str:
    """The first line of what an exception says; its type's name if it says nothing."""
    lines = str(error).strip().splitlines()
    return lines[0].rstrip() if lines else type(error).__name__
