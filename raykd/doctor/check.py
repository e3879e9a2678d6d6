"""What every check of the doctor returns."""

from __future__ import annotations

from typing import NamedTuple


class Check(NamedTuple):
    """What a check found. `ok` None: it works, and somebody should know."""

    name: str
    ok: bool | None
    said: str
    mend: str | None = None  # what to do about it; given whenever `ok` is False
