"""Making a store: it is written beside its place and renamed into it, whole or not at all.

Of two processes that start at once, the second waits for the first. Where the file system has no locks both
write, and one rename wins. With locks, the next process continues what a killed one had written.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shutil
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from trainables.core.errors import UserError
from trainables.core.file_lock import FileLock
from trainables.core.files import opened, own_folder
from trainables.core.heartbeat import heartbeat, heartbeat_while
from trainables.data.resumable_file import JOURNAL
from trainables.data.sources.base import Parts
from trainables.data.store import FORMAT, checksum, is_store
from trainables.data.store_images import ABOUT
from trainables.data.store_kinds import Kind
from trainables.data.store_writer import Undecodable, write_part

_ELSEWHERE = "a folder that can be written: set RAYKD_CACHE"
_BESIDE = ".tmp-"  # in the names of stores that are not whole
_POLL_S = 0.2  # between looks at another process that is writing the same store
Progress = Callable[[int, int], None]


def make_store(
    folder: Path,
    kind: Kind,
    parts: Callable[[], Parts],
    max_undecodable: float,
    about: dict[str, Any],
    progress: Progress | None,
) -> None:
    """Make the store in `folder` from `parts()`, unless it is there by now.

    `kind` says how pictures are kept. `progress(done, total)` is called now and then, in images. `about` goes
    into `store.json`. `UserError` if more than the share `max_undecodable` of the pictures cannot be decoded,
    or if there is no room.
    """
    try:
        own_folder(folder.parent)
        with _alone(folder) as locked:
            if is_store(folder):
                return
            temporary = folder.with_name(f"{folder.name}{_BESIDE}half") if locked else _beside(folder)
            if locked:  # nobody else is writing: a process that was killed left these
                for left in set(folder.parent.glob(f"{folder.name}{_BESIDE}*")) - {temporary}:
                    shutil.rmtree(left, ignore_errors=True)
            own_folder(temporary)
            try:
                with heartbeat_while("reading or downloading what is there"):
                    found = parts()
                _write(temporary, kind, found, max_undecodable, about, progress)
                _put(temporary, folder)
            except BaseException as error:
                if isinstance(error, Exception) or not locked:
                    shutil.rmtree(temporary, ignore_errors=True)
                raise
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise _no_room(folder.parent, str(error)) from error
        raise UserError("data", f"decoded images cannot be written: {error}", expected=_ELSEWHERE) from error


def _write(
    folder: Path,
    kind: Kind,
    parts: Parts,
    limit: float,
    about: dict[str, Any],
    progress: Progress | None,
) -> None:
    """Convert all parts into `folder`. `store.json` is written last."""
    named = {"train": parts.train, **({"test": parts.test} if parts.test is not None else {})}
    total = sum(part.count for part in named.values())
    there = sum(path.stat().st_size for path in folder.iterdir())
    need, free = total * (kind.bytes_each + 8) - there, shutil.disk_usage(folder).free
    if need > free:
        raise _no_room(folder.parent, f"{need / 1e9:.1f} GB are needed, {free / 1e9:.1f} GB are free")
    bad = Undecodable(0, total, [])
    written: dict[str, Any] = {}
    done = 0
    for name, part in named.items():
        path = folder / f"{name}.arrow"

        def advance(count: int) -> None:
            nonlocal done
            done += count
            heartbeat(f"decoding images, {done}/{total}")
            if progress is not None:
                progress(done, total)
            bad.refuse_above(limit, done)

        images, sha256, labels = write_part(path, part, kind, bad, advance)
        if not images:
            raise UserError("data.path", f"the {name} part holds no picture that can be decoded")
        written[name] = {"images": images, "bytes": path.stat().st_size, "sha256": sha256, "labels": labels}
    for journal in folder.glob(f"*{JOURNAL}"):
        journal.unlink()
    facts = {"format": FORMAT, **kind.facts(), "classes": parts.classes, "parts": written}
    facts |= {"undecodable": asdict(bad), "about": about}
    with opened(folder / ABOUT, "w") as file:
        json.dump({**facts, "checksum": checksum(facts)}, file, indent=1)
        file.flush()
        os.fsync(file.fileno())


def _put(temporary: Path, folder: Path) -> None:
    """Rename into place. A damaged store is moved aside first; a good one from another process is kept."""
    try:
        temporary.rename(folder)
    except OSError:
        if is_store(folder):
            shutil.rmtree(temporary)
            return
        aside = _beside(folder)
        with contextlib.suppress(FileNotFoundError):
            folder.rename(aside)
        shutil.rmtree(aside, ignore_errors=True)
        temporary.rename(folder)


def _beside(folder: Path) -> Path:
    """A new temporary name beside `folder`."""
    return folder.with_name(f"{folder.name}{_BESIDE}{uuid.uuid4().hex}")


def _no_room(folder: Path, why: str) -> UserError:
    return UserError(
        "data",
        f"there is no room for the decoded images in {folder}: {why}",
        expected="a larger disk (set RAYKD_CACHE) or a smaller data.image_size",
    )


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[bool]:
    """Hold the lock of `folder`, after waiting for it. Yields False where the file system has no locks."""
    with FileLock(folder.with_name(f"{folder.name}.lock")) as lock:
        try:
            while not lock.try_take():
                heartbeat("waiting for another process that prepares the same images")
                time.sleep(_POLL_S)
        except OSError:
            yield False
            return
        yield True
