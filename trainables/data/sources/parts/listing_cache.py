"""Listings of folders that are read once a node, not by every trial and worker.

A listing (every file's name, size and time) lies in the cache. It is used again

- by processes that were there before it was read: a new process reads the folder itself, unless another one
  has read it since,
- while all folders of the data set have the times of change and inodes that they had then, so that no file
  was added, removed, renamed or replaced by a new one,
- and not at all to prepare images: then the folder is read again.

A file whose content is overwritten in its place has a new time, but its folder has not: the next process sees
it. Folders that were changed in the two seconds before they were read are not kept, because a later change
could have the same time. Where there is no cache yet, none is made: whatever is only checked leaves no trace.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import time
import zlib
from collections import Counter
from collections.abc import Iterator
from contextvars import ContextVar
from pathlib import Path
from typing import IO, Any

from trainables.core.errors import UserError
from trainables.core.file_lock import FileLock
from trainables.core.files import LOADED_AT, cache_folder, opened, own_folder, replacing
from trainables.core.heartbeat import heartbeat, heartbeat_while
from trainables.data.sources.base import Taken
from trainables.data.sources.parts.files import Files, read_files

_VERSION = 1
_UNSURE_S = 2.0  # the coarsest times of change that file systems keep (FAT's)
_POLL_S = 0.1
_fresh_since: ContextVar[float] = ContextVar("fresh_since", default=LOADED_AT)
_log = logging.getLogger(__name__)


@contextlib.contextmanager
def fresh_listings() -> Iterator[None]:
    """Inside, folders are read again, once each, whatever is in the cache."""
    token = _fresh_since.set(time.time())
    try:
        yield
    finally:
        _fresh_since.reset(token)


def find_files(folder: Path, endings: tuple[str, ...]) -> Files:
    """As `read_files`, from the cache if the listing there still holds."""
    return _find(folder, endings, with_paths=True)


def files_digest(folder: Path, endings: tuple[str, ...]) -> str:
    """The SHA-256 of names, sizes and times of these files. `UserError` as in `read_files`."""
    return _find(folder, endings, with_paths=False).digest


def _find(folder: Path, endings: tuple[str, ...], with_paths: bool) -> Files:
    if not cache_folder().is_dir():
        return read_files(folder, endings)
    place = _place(folder, endings)
    if (known := _known(place, folder, with_paths)) is not None:
        return known
    with _alone(place):
        if (known := _known(place, folder, with_paths)) is not None:
            return known
        begun = time.time()
        with heartbeat_while("listing the files of the data set"):
            files = read_files(folder, endings)
        newest = max(status.st_mtime_ns for _, status in files.folders) / 1e9
        if newest < begun - _UNSURE_S:
            _keep(place, files, begun)
        return files


def _place(folder: Path, endings: tuple[str, ...]) -> Path:
    key = json.dumps([_VERSION, os.path.realpath(folder), endings])
    return cache_folder() / "listings" / hashlib.sha256(key.encode(errors="surrogateescape")).hexdigest()[:16]


@contextlib.contextmanager
def _alone(place: Path) -> Iterator[None]:
    """Wait for a process that reads the same folder; do not where the cache has no locks or is not there."""
    with contextlib.ExitStack() as stack:
        with contextlib.suppress(OSError, UserError):
            own_folder(place.parent)
            lock = stack.enter_context(FileLock(place.with_suffix(".lock")))
            while not lock.try_take():
                heartbeat("waiting for another process that lists the same folder")
                time.sleep(_POLL_S)
        yield


def _keep(place: Path, files: Files, begun: float) -> None:
    """Write a listing: a line of JSON, then the paths, each with a zero byte after it."""
    paths = _encoded("".join(f"{path}\0" for path in files.paths))
    head = {
        "read_at": begun,
        "digest": files.digest,
        "others": files.others,
        "links": files.links,
        "folders": [[path, *_mark(status)] for path, status in files.folders],
        "paths": [len(files.paths), zlib.crc32(paths)],
    }
    line = json.dumps(head)
    try:
        with replacing(place) as temporary, opened(temporary, "wb") as file:
            file.write(f"{zlib.crc32(line.encode())} {line}\n".encode())
            file.write(paths)
    except (OSError, UserError) as error:
        _log.warning("the listing of a folder cannot be kept: %s", error)


def _known(place: Path, folder: Path, with_paths: bool) -> Files | None:
    """The listing in the cache; None if there is none, if it is damaged, or if it may not hold."""
    try:
        with opened(place) as file:
            head = _head(file)
            if head["read_at"] < _fresh_since.get():
                return None
            if any(_mark((folder / path).stat()) != tuple(mark) for path, *mark in head["folders"]):
                return None
            links = [Taken(*link) for link in head["links"]]
            files = Files([], head["digest"], Counter(head["others"]), links)
            if with_paths:
                content = file.read()
                files.paths = _decoded(content).split("\0")[:-1]
                if [len(files.paths), zlib.crc32(content)] != head["paths"]:
                    return None
            return files
    except (OSError, UserError, ValueError, KeyError, TypeError):
        return None


def _head(file: IO[bytes]) -> dict[str, Any]:
    """The first line of a listing. Raises `ValueError` if it is not what was written."""
    checksum, _, line = file.readline().rstrip(b"\n").partition(b" ")
    if int(checksum) != zlib.crc32(line):
        raise ValueError("the listing is not what was written")
    head: dict[str, Any] = json.loads(line)
    return head


def _mark(status: os.stat_result) -> tuple[int, int, int]:
    """What tells whether entries of a folder were added, removed or renamed."""
    return status.st_ino, status.st_mtime_ns, status.st_ctime_ns


def _encoded(text: str) -> bytes:
    return text.encode(errors="surrogateescape")


def _decoded(content: bytes) -> str:
    return content.decode(errors="surrogateescape")
