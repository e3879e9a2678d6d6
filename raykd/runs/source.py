"""Where a spec was read from."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple


class Source(NamedTuple):
    """The file and the overrides that a spec was read from, so that `resume` notices a change."""

    path: Path
    overrides: list[str]

    @classmethod
    def of(cls, path: Path, overrides: list[str]) -> Source | None:
        """The source; None for a pipe or standard input, which cannot be read again."""
        return cls(path, overrides) if path.resolve().is_file() else None

    def recorded(self) -> dict[str, Any]:
        """The source for the ledger, with the folder that relative paths in the spec start from."""
        return {"path": str(self.path.resolve()), "overrides": self.overrides, "folder": str(Path.cwd())}
