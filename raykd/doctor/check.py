"""What every check of the doctor returns."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from trainables.core.errors import UserError


class Check(NamedTuple):
    """What a check found. `ok` None: it works, but the user should know what `said` says."""

    name: str
    ok: bool | None
    said: str
    mend: str | None = None  # what to do about it; given whenever `ok` is False


def answered(name: str, question: Callable[[], str]) -> Check:
    """What `question` returns, as a check that passed. A `UserError` is one that failed, with its field."""
    try:
        return Check(name, True, question())
    except UserError as error:
        mend = f"correct `{error.field}`" if error.field else "correct the spec"
        return Check(name, False, str(error), mend)
