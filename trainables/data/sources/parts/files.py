"""Finding the files of a data set below a folder."""

from __future__ import annotations

import errno
import hashlib
import os
import stat
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from trainables.core.errors import UserError
from trainables.core.files import expanded
from trainables.data.sources.base import Taken
from trainables.spec.trial import DataSpec

_LINKS = 2  # links from one folder of a data set to another that are followed on one path
_SYSTEM = ("__MACOSX", "lost+found")  # made by archive tools and file systems


def user_folder(spec: DataSpec, what: str) -> Path:
    """`spec.path` as an absolute path. `UserError` if it is not an existing folder; `what`: its content."""
    if spec.path is None:
        raise UserError(
            "data.path",
            f"is needed by the source {spec.name!r}",
            expected=f"--set data.path=/folder/that/holds/the/{what}",
        )
    path = expanded(spec.path).absolute()
    try:
        found = stat.S_ISDIR(path.stat().st_mode)
        problem = "is a file, not a folder"
    except (OSError, ValueError) as error:
        absent = isinstance(error, FileNotFoundError)
        found, problem = False, "no such folder" if absent else f"cannot be looked at: {error}"
    if not found:
        raise UserError("data.path", problem, value=str(path), expected=f"the folder that holds the {what}")
    return path


@dataclass
class Files:
    """The files below a folder: paths relative to it, parts joined by "/", in a fixed order."""

    paths: list[str] = field(default_factory=list)
    digest: str = ""  # SHA-256 of names, sizes and times
    others: Counter[str] = field(default_factory=Counter)  # ending -> number of skipped files with it
    links: list[Taken] = field(default_factory=list)  # links that are not followed
    folders: list[tuple[str, os.stat_result]] = field(default_factory=list)  # and their status before reading

    def skipped(self) -> list[Taken]:
        """The files that are not part of the data set because of their ending or place."""
        counted = sorted(self.others.items())
        named = [Taken("", f"*{end}" if end else "files", n, "by their ending") for end, n in counted]
        return named + self.links


def read_files(folder: Path, endings: tuple[str, ...]) -> Files:
    """Every file below `folder` with one of the endings. Memory use is one string for each file.

    Hidden files and folders are left out. Links are followed, but not in a circle: not to a folder above, and
    not to a third folder of the data set after two others. A file that cannot be read (a dead link, a pipe)
    is included because of its name; decoding counts it as undecodable. `UserError` for a folder that cannot
    be listed, or without such files.
    """
    found, digest = Files(), hashlib.sha256()
    try:
        for path, status in _walk(folder, "", endings, Path(os.path.realpath(folder)), (), 0, found):
            found.paths.append(path)
            line = f"{path}\0{status.st_size}\0{status.st_mtime_ns}\n"
            digest.update(line.encode(errors="surrogateescape"))
    except OSError as error:
        denied = error.errno in (errno.EACCES, errno.EPERM)
        expected = f"the right to read {error.filename}, or none of it in there" if denied else None
        raise UserError("data.path", f"{folder} cannot be listed: {error}", expected=expected) from error
    if not found.paths:
        raise UserError("data.path", f"no files ending in {', '.join(endings)} below {folder}")
    found.digest = digest.hexdigest()
    return found


def _walk(
    folder: Path,
    prefix: str,
    endings: tuple[str, ...],
    root: Path,
    above: tuple[tuple[int, int], ...],
    linked: int,
    found: Files,
) -> Iterator[tuple[str, os.stat_result]]:
    """(path relative to the data set, status) of the files below `folder`; skipped files go into `found`.

    `root` is the real path of the data set. `above` are the folders on the path to `folder`, which leads
    through `linked` links from one folder of the data set to another.
    """
    here = folder.stat()
    me = (here.st_dev, here.st_ino)
    found.folders.append((prefix, here))
    if me in above:
        found.links.append(Taken("", prefix.rstrip("/"), 0, "a link that leads in a circle"))
        return
    with os.scandir(folder) as scan:
        entries = sorted(scan, key=lambda entry: entry.name)
    for entry in entries:
        name = entry.name
        if name.startswith(".") or name in _SYSTEM:
            continue
        try:
            is_folder = entry.is_dir()
        except OSError:  # a link to itself, or to a folder without the right to read
            is_folder = False
        if is_folder:
            onward = linked
            if entry.is_symlink():
                within = root in Path(os.path.realpath(entry.path)).parents
                if within and linked == _LINKS:
                    found.links.append(Taken("", prefix + name, 0, "a link that leads in a circle"))
                    continue
                onward = linked + within
            lower = f"{prefix}{name}/"
            yield from _walk(folder / name, lower, endings, root, (*above, me), onward, found)
        elif name.lower().endswith(endings):
            try:
                yield prefix + name, entry.stat()
            except OSError as error:
                if entry.is_symlink():
                    yield prefix + name, entry.stat(follow_symlinks=False)
                elif error.errno != errno.ENOENT:  # ENOENT: removed since the folder was listed
                    raise
        elif entry.is_symlink() and not Path(entry.path).exists():
            found.links.append(Taken("", prefix + name, 0, "a link that leads nowhere"))
        else:
            found.others[Path(name).suffix.lower()] += 1
