"""Files that are there whole or not at all, and that are what they seem to be.

A storage or a cache can lie where other users make files too: `/scratch`, mode 1777, for one. A link that one
of them puts in the place of a log would have us write into the file that it names. Below a folder that was
given to `guard`, therefore, no link is followed, no folder or file of another user's is written, and what is
opened is a regular file: a pipe would wait for ever. Links above that folder are the user's own.

    guard(storage)
    folder = own_folder(storage / name)
    with opened(folder / "log.txt", "a") as file: ...
"""

from __future__ import annotations

import contextlib
import errno
import os
import pwd
import stat
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any, NamedTuple

from trainables.core.errors import UserError

LOADED_AT = time.time()  # when this process loaded raykd
_FOLDER = getattr(os, "O_PATH", os.O_RDONLY) | os.O_DIRECTORY | os.O_CLOEXEC


class _Rules(NamedTuple):
    """Whose files and folders are written below a guarded folder, beside the user's own and root's."""

    shared: bool = False  # those of members of one's groups, for whom the group can write
    owner: int | None = None  # this user's


_GUARDED: dict[Path, _Rules] = {}


def guard(folder: Path, *, shared: bool = False, owner: int | None = None) -> Path:
    """From here on nothing below `folder` is reached through a link, nor written if it is another user's.

    With `shared` it may also be that of a member of one's group, for whom the group can write. `owner` is a
    user who is trusted like oneself: whoever drives the sweep that this process works for.
    """
    _GUARDED[folder.absolute()] = _Rules(shared, owner)
    return folder


def own_folder(folder: Path) -> Path:
    """Make a folder and all above it. `UserError` where a link, or another user's folder, is on the way."""
    top, steps, _ = _way(folder)
    if not steps:
        folder.mkdir(parents=True, exist_ok=True)
        return folder
    top.mkdir(parents=True, exist_ok=True)
    with _at(folder, make=True) as at:
        with contextlib.suppress(FileExistsError):
            os.mkdir(at.name, dir_fd=at.handle)
        at.refuse_foreign(os.stat(at.name, dir_fd=at.handle, follow_symlinks=False), folder)
    return folder


def opened(path: Path, mode: str = "rb", encoding: str | None = None) -> IO[Any]:
    """As `path.open`, for a regular file alone; not through a link to write, or below a guarded folder.

    There a file to write must be one's own. `UserError` for anything else, `OSError` as `open` raises it.
    """
    return open(path, mode, encoding=encoding, opener=lambda _, flags: open_file(path, flags))


def open_file(path: Path, flags: int, mode: int = 0o666) -> int:
    """As `os.open`, with the care of `opened`."""
    writes = bool(flags & (os.O_WRONLY | os.O_RDWR))
    with _at(path) as at:
        try:
            careful = _CAREFUL | (os.O_NOFOLLOW if at.rules or writes else 0)
            handle = os.open(at.name, flags & ~os.O_TRUNC | careful, mode, dir_fd=at.handle)
        except OSError as error:
            if error.errno in (errno.ELOOP, errno.EMLINK, errno.ENXIO):
                raise _odd(path, at.look()) from None
            raise OSError(error.errno, error.strerror, str(path)) from None
        try:
            status = os.fstat(handle)
            if not stat.S_ISREG(status.st_mode):
                raise _odd(path, status)
            if writes:
                at.refuse_foreign(status, path)
                if status.st_nlink > 1 and at.others_may_write():
                    problem = f"has {status.st_nlink} names (hard links), in a folder where others can write"
                    raise UserError(str(path), problem, expected="a file that has this name alone")
                if flags & os.O_TRUNC:
                    os.ftruncate(handle, 0)
        except BaseException:
            os.close(handle)
            raise
    return handle


def read_bytes(path: Path) -> bytes:
    """The content of a regular file, not through a link."""
    with opened(path) as file:
        data: bytes = file.read()
    return data


def is_own_file(path: Path) -> bool:
    """Whether there is a regular file here, which could be opened. `UserError` for a link or a pipe."""
    try:
        os.close(open_file(path, os.O_RDONLY))
    except (FileNotFoundError, NotADirectoryError):
        return False
    return True


def remove(path: Path) -> None:
    """Remove a file or a link, if it is there; not one that lies behind a link."""
    with contextlib.suppress(FileNotFoundError), _at(path) as at:
        os.unlink(at.name, dir_fd=at.handle)


@contextlib.contextmanager
def replacing(path: Path, name: Callable[[], str] | None = None, *, durable: bool = True) -> Iterator[Path]:
    """Write a file whole or not at all: yields a temporary path beside `path`.

    On a clean exit what was written there is on the disk and has the name of `path`, or the one that `name`
    then gives; else it is removed. Whoever reads `path` meanwhile sees the old file. Without `durable` it is
    not synced: after a crash of the machine (not of the process) the file can hold anything.
    """
    own_folder(path.parent)
    # Without the name of `path`: TensorBoard would read a file with `tfevents` in its name.
    temporary = path.with_name(f".{uuid.uuid4().hex}.tmp")
    try:
        # There before anybody writes to it by its name, and new: so it is no link that others put there.
        os.close(open_file(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY))
        yield temporary
        if durable:
            with opened(temporary, "rb+") as file:
                os.fsync(file.fileno())
        _rename(temporary, path.with_name(name()) if name else path)
        if durable:
            sync_folder(path.parent)
    finally:
        with contextlib.suppress(OSError):
            remove(temporary)


def _rename(old: Path, new: Path) -> None:
    """Give the file `old` the name `new`, in the place of a file or link of that name."""
    with _at(old) as here, _at(new) as there:
        try:
            os.rename(here.name, there.name, src_dir_fd=here.handle, dst_dir_fd=there.handle)
        except OSError as error:
            raise OSError(error.errno, error.strerror, str(new)) from None


def sync_folder(folder: Path) -> None:
    """Make a rename in `folder` durable."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def expanded(path: str | Path) -> Path:
    """With `~` as the shell has it: that of a user who does not exist stays as it is."""
    try:
        return Path(path).expanduser()
    except RuntimeError:
        return Path(path)


def cache_folder() -> Path:
    """Where what can be made again lies by default: $RAYKD_CACHE, or ~/.cache/raykd."""
    try:
        folder = Path(os.environ.get("RAYKD_CACHE") or "~/.cache/raykd").expanduser()
    except RuntimeError:
        expected = "`HOME=DIR`, or `RAYKD_CACHE=DIR` with a folder of yours"
        raise UserError("HOME", "this user has no home folder", expected=expected) from None
    return guard(folder, shared=True)


# --- how a path is gone -----------------------------------------------------------------------------------

# Not to wait at a pipe; a regular file does not care.
_CAREFUL = os.O_NONBLOCK | os.O_CLOEXEC


class _Place(NamedTuple):
    """An open folder and a name in it."""

    handle: int
    name: str
    rules: _Rules | None  # None where nothing is guarded

    def look(self) -> os.stat_result:
        return os.stat(self.name, dir_fd=self.handle, follow_symlinks=False)

    def others_may_write(self) -> bool:
        status = os.fstat(self.handle)
        return bool(status.st_mode & stat.S_IWOTH) or status.st_uid not in (0, os.geteuid())

    def refuse_foreign(self, status: os.stat_result, path: Path) -> None:
        """`UserError` where what has this status is a link, or of a user who could have laid a trap."""
        if stat.S_ISLNK(status.st_mode):
            raise _odd(path, status)
        if self.rules is None or status.st_uid in (0, os.geteuid(), self.rules.owner):
            return
        if self.rules.shared and _of_group(status):
            return
        if status.st_uid == self._created_as():  # NFS that squashes root, FUSE, SMB: all is one user's there
            return
        raise UserError(
            str(path),
            f"belongs to {user_name(status.st_uid)}, and you are {user_name(os.geteuid())}",
            expected="a file or folder of yours: another name, another `--storage`, or a copy by `cp -r`",
        )

    def _created_as(self) -> int | None:
        """The user to whom a new file belongs here, None where none can be made."""
        name = f".raykd-{uuid.uuid4().hex}"
        flags = os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            handle = os.open(name, flags, 0o600, dir_fd=self.handle)
        except OSError:
            return None
        try:
            return os.fstat(handle).st_uid
        finally:
            os.close(handle)
            os.unlink(name, dir_fd=self.handle)


def user_name(uid: int) -> str:
    """Who a user id is, for a message."""
    try:
        return f"{pwd.getpwuid(uid).pw_name} (user id {uid})"
    except KeyError:
        return f"user id {uid}"


def _way(path: Path) -> tuple[Path, tuple[str, ...], _Rules | None]:
    """The folder above which links are followed, the names below it, and what holds for these."""
    whole = path.absolute()
    found = [folder for folder in (*whole.parents, whole) if folder in _GUARDED]
    if not found:
        return whole, (), None
    top = max(found, key=lambda folder: len(folder.parts))
    return top, whole.parts[len(top.parts) :], _GUARDED[top]


@contextlib.contextmanager
def _at(path: Path, make: bool = False) -> Iterator[_Place]:
    """The folder that holds `path`, open, and the name of `path` in it; with `make`, folders on the way."""
    top, steps, rules = _way(path)
    if not steps:
        top, steps, rules = path.absolute().parent, (path.name,), None
    handle = os.open(top, _FOLDER)
    at = top
    try:
        for step in steps[:-1]:
            at /= step
            place = _Place(handle, step, rules)
            if make:
                with contextlib.suppress(FileExistsError):
                    os.mkdir(step, dir_fd=handle)
                place.refuse_foreign(place.look(), at)
            try:
                inner = os.open(step, _FOLDER | os.O_NOFOLLOW, dir_fd=handle)
            except OSError as error:
                with contextlib.suppress(OSError):
                    if stat.S_ISLNK((status := place.look()).st_mode):
                        raise _odd(at, status) from None
                raise OSError(error.errno, error.strerror, str(at)) from None
            os.close(handle)
            handle = inner
        yield _Place(handle, steps[-1], rules)
    finally:
        os.close(handle)


def _of_group(status: os.stat_result) -> bool:
    """Does a member of one's group share this with the group, and with nobody else?"""
    mine = status.st_gid in (os.getegid(), *os.getgroups())
    return mine and bool(status.st_mode & stat.S_IWGRP) and not status.st_mode & stat.S_IWOTH


def _odd(path: Path, status: os.stat_result) -> UserError:
    kinds = {stat.S_IFLNK: "link", stat.S_IFDIR: "folder", stat.S_IFIFO: "pipe", stat.S_IFSOCK: "socket"}
    kind = f"a {kinds.get(stat.S_IFMT(status.st_mode), 'device')}"
    if not stat.S_ISLNK(status.st_mode):
        return UserError(str(path), f"is {kind}", expected="a regular file, or nothing")
    with contextlib.suppress(OSError):
        kind = f"a link to {path.readlink()}"
    return UserError(
        str(path),
        f"is {kind}, and nothing in a sweep's folder or a cache is reached through a link",
        expected="the file or folder itself, or nothing; links above the storage are followed",
    )
