"""Finding the files of a data set below a folder."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

from trainables.errors import UserError
from trainables.trial import DataSpec

TEST = ("test", "val", "valid", "validation")  # names of a test part, the best first
UNLABELLED = ("unlabelled", "unlabeled")


def user_folder(spec: DataSpec, what: str) -> Path:
    """`spec.path` as an existing folder of `what`, or `UserError`."""
    if spec.path is None:
        raise UserError(
            "data.path",
            f"is needed by the source {spec.name!r}",
            expected=f"--set data.path=/folder/that/holds/the/{what}",
        )
    path = spec.path.expanduser().absolute()
    if not path.is_dir():
        problem = "is a file, not a folder" if path.exists() else "no such folder"
        raise UserError("data.path", problem, value=str(path), expected=f"the folder that holds the {what}")
    return path


def find_files(folder: Path, endings: tuple[str, ...]) -> tuple[list[str], str]:
    """Every file below `folder` with one of the endings, and a SHA-256 of their names, sizes and times.

    Paths are relative to `folder`, parts joined by "/", in a fixed order. Hidden files and folders are left
    out. Links are followed, but not in a circle. One string a file is all that is kept of it.
    """
    digest = hashlib.sha256()
    paths: list[str] = []
    try:
        for path, status in _walk(folder, "", endings, frozenset()):
            paths.append(path)
            line = f"{path}\0{status.st_size}\0{status.st_mtime_ns}\n"
            digest.update(line.encode(errors="surrogateescape"))
    except OSError as error:
        raise UserError("data.path", f"{folder} cannot be listed: {error}") from error
    if not paths:
        raise UserError("data.path", f"no files ending in {', '.join(endings)} below {folder}")
    return paths, digest.hexdigest()


def _walk(
    folder: Path, prefix: str, endings: tuple[str, ...], above: frozenset[tuple[int, int]]
) -> Iterator[tuple[str, os.stat_result]]:
    here = folder.stat()
    me = (here.st_dev, here.st_ino)
    if me in above:
        return  # a link back to where we came from
    with os.scandir(folder) as scan:
        entries = sorted(scan, key=lambda entry: entry.name)
    for entry in entries:
        if entry.name.startswith(".") or entry.name == "__MACOSX":
            continue
        if entry.is_dir():
            yield from _walk(folder / entry.name, f"{prefix}{entry.name}/", endings, above | {me})
        elif entry.name.lower().endswith(endings) and entry.is_file():
            yield prefix + entry.name, entry.stat()
