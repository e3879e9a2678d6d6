"""Which runs a tracker holds whole already, so that a resume of a large sweep does not look at each again.

A file of lines `RUN DIGEST` in the sweep's folder. Whoever deletes it has all runs looked at again, which
changes nothing in a tracker that holds them.
"""

from __future__ import annotations

import contextlib
from pathlib import Path

from trainables.core.files import opened, own_folder, read_bytes


class Written:
    """The digests of the runs that have been written whole."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._digests: dict[str, str] = {}
        with contextlib.suppress(FileNotFoundError):
            for line in read_bytes(path).decode(errors="replace").splitlines(keepends=True):
                words = line.split()
                if line.endswith("\n") and len(words) == 2:  # else it is torn
                    self._digests[words[0]] = words[1]

    def __contains__(self, run: tuple[str, str]) -> bool:
        """Whether the run of this id was written with this digest."""
        return self._digests.get(run[0]) == run[1]

    def add(self, run: str, digest: str) -> None:
        """A run was written whole."""
        self._digests[run] = digest
        own_folder(self._path.parent)
        with opened(self._path, "a") as file:
            file.write(f"\n{run} {digest}\n")  # a line of its own, also behind a torn one
