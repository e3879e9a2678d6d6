"""Where sweeps are kept: a folder, or a URI with a working copy of it on this machine.

All of raykd works on folders. `--storage s3://bucket/sweeps` gives it one under the cache, which knows by the
file `.origin` in it what it is a copy of. The truth of such a sweep is on the remote storage: its ledger, its
lock, the checkpoints and students of its trials, its trained teachers. Tables, curves and logs are written
here and mirrored.
"""

from __future__ import annotations

import functools
import hashlib
import os
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from stat import S_ISREG
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import unquote, urlsplit

from raykd.storage.cache import ready_cache
from raykd.storage.owners import make_private
from trainables.core.errors import StorageLost, UserError
from trainables.core.files import (
    cache_folder,
    guard,
    is_own_file,
    opened,
    own_folder,
    read_bytes,
    remove,
    replacing,
)
from trainables.core.storage_retry import limited, retry_seconds, with_retry

if TYPE_CHECKING:
    from raykd.storage.remote import Remote

ORIGIN = ".origin"
TEACHERS = ".teachers"
LEDGER = "ledger.jsonl"
SEGMENTS = "ledger"  # a sweep's folder of these, on a remote storage
_MIRROR_S = 20.0
_PROBE = 64 << 10  # bytes that have to go into a storage before a sweep starts
_FIRST_TRY_S = 10.0
_BRIEF_S = 5.0  # views can wait for the next round
_LARGE, _LARGE_EVERY = 1 << 20, 6  # larger files are mirrored in every sixth round only
_NOT_MIRRORED = ("trials", "references", "report.html")  # who writes there brings it


class Origin(NamedTuple):
    """What a folder is a working copy of."""

    uri: str
    here: Path  # the copy of the whole storage

    @property
    def remote(self) -> Remote:
        return _connected(self.uri)

    def key(self, path: Path) -> str:
        """What a file of the working copy is called on the storage."""
        return path.absolute().relative_to(self.here).as_posix()


def storage_folder(text: str | Path, check: bool = True) -> Path:
    """The folder that `--storage` means: itself, or the working copy of a URI.

    `UserError` for a URI that cannot work: refused, no such bucket, no answer (unless `check` is False).
    """
    if isinstance(text, Path):
        return guard(text)
    if not re.match(r"[a-z][a-z0-9+.-]+://", text, re.IGNORECASE):
        return guard(Path(text))
    if text.lower().startswith("file://"):
        return guard(Path(unquote(urlsplit(text).path)))
    from raykd.storage.remote import Remote
    from raykd.storage.uri import shown

    uri = text if "?" in text else text.rstrip("/")
    remote = Remote.connect(uri)
    if check:
        remote.check()
    name = re.sub(r"\W+", "-", shown(uri).partition("://")[2]).strip("-")[-40:]
    folder = cache_folder().absolute() / "storage" / f"{name}-{hashlib.sha256(uri.encode()).hexdigest()[:12]}"
    if not (folder / ORIGIN).exists():
        ready_cache()
        make_private(folder)
        with replacing(folder / ORIGIN) as path:
            path.write_text(uri + "\n")
    return guard(folder)


def origin_of(folder: Path) -> Origin | None:
    """Of what a sweep's folder, or that of all sweeps, is a copy; None where it is the storage itself."""
    folder = folder.absolute()
    for at in (folder, folder.parent):
        if (at / ORIGIN).is_file():
            return Origin(read_bytes(at / ORIGIN).decode().strip(), at)
    return None


def named(folder: Path) -> str:
    """What a user calls this storage, or this folder in it."""
    origin = origin_of_file(folder)
    if origin is None:
        return str(folder)
    from raykd.storage.uri import shown

    key = origin.key(folder)
    return shown(origin.uri, "" if key == "." else key)


def option(storage: Path) -> str:
    """What to give to `--storage` for this one."""
    origin = origin_of(storage)
    return str(storage) if origin is None else origin.uri


def own_sweep(folder: Path, make: bool = False) -> Path:
    """See to it that a sweep's folder is a folder of this user's, and that nothing in it is a link's target.

    It is made if asked. `UserError` where it is a link, or belongs to somebody else.
    """
    guard(folder.parent)
    if make or folder.is_symlink() or folder.exists():
        own_folder(folder)
        for entry in folder.iterdir():  # said now, and not when Ray has been started
            if not entry.is_dir() or entry.is_symlink():
                is_own_file(entry)
    return folder


def placed(folder: Path) -> Path:
    """A folder of the storage by the path that every node knows: links above the storage are followed."""
    return guard(folder.parent.resolve()) / folder.name


def teachers_of(storage: Path) -> Path:
    """Where teachers lie that this user has trained for the sweeps of a storage.

    In a storage that several users share each has a folder: another's weights could be anything.
    """
    common = storage / TEACHERS
    try:
        own_sweep(common)
    except UserError:
        return storage / f"{TEACHERS}-{os.geteuid()}"
    return common


def check_writable(folder: Path) -> None:
    """`StorageLost` or `UserError` where a sweep's folder cannot be written, before anything is started."""
    origin = origin_of(folder)
    if origin is not None:
        origin.remote.check_writable()
        return
    probe = folder / f".probe-{os.getpid()}.tmp"

    def write() -> None:
        own_sweep(folder, make=True)
        with opened(probe, "wb") as file:
            file.write(b"\0" * _PROBE)
            file.flush()
            os.fsync(file.fileno())

    try:
        with_retry(write, f"{folder} cannot be written", limit=min(_FIRST_TRY_S, retry_seconds()))
    finally:
        with suppress(OSError, UserError):
            remove(probe)
        with suppress(OSError):
            folder.rmdir()  # a new sweep that is refused later leaves nothing behind


def sweeps(storage: Path) -> list[str]:
    """The names of the sweeps in a storage."""
    origin = origin_of(storage)
    if origin is None:
        return sorted(path.parent.name for path in storage.glob(f"*/{LEDGER}"))
    found = origin.remote.list("", recursive=False)
    return [stored.key for stored in found if stored.size < 0 and not stored.key.startswith(".")]


def holds_ledger(folder: Path) -> bool:
    """Has a sweep been begun in this folder?"""
    origin = origin_of(folder)
    if origin is None:
        return (folder / LEDGER).exists()
    return bool(origin.remote.list(f"{origin.key(folder)}/{SEGMENTS}"))


def holds_files(folder: Path) -> bool:
    """Is there such a folder in the storage?"""
    origin = origin_of_file(folder)
    return folder.is_dir() if origin is None else bool(origin.remote.list(origin.key(folder)))


def fetch(path: Path) -> bool:
    """Bring a file of a working copy up to date; whether there is such a file."""
    origin = origin_of_file(path)
    return is_own_file(path) if origin is None else origin.remote.pull(origin.key(path), path)


def publish(path: Path) -> None:
    """Bring a file of a working copy to the storage that it belongs to, if any."""
    origin = origin_of_file(path)
    if origin is not None:
        origin.remote.push(path, origin.key(path))


def fetch_teachers(storage: Path) -> None:
    """Bring the trained teachers of a storage here that are not here yet."""
    origin = origin_of(storage)
    for stored in origin.remote.list(TEACHERS, recursive=False) if origin is not None else ():
        if stored.key.endswith(".safetensors") and not (storage / stored.key).is_file():
            fetch(storage / stored.key)


def origin_of_file(path: Path) -> Origin | None:
    """As `origin_of`, for a file anywhere below."""
    above = (path, *path.absolute().parents)
    return next((found for folder in above if (found := origin_of(folder)) is not None), None)


@contextmanager
def mirrored(folder: Path) -> Iterator[None]:
    """While this runs, what is written in a sweep's folder is copied to the storage it belongs to, if any.

    Views only, all of which can be made again from the ledger: when one cannot be copied, the next round
    will. Only while the sweep's ledger is held: what lies here may be older than another machine's.
    """
    origin = origin_of(folder)
    if origin is None:
        yield
        return
    mirror = _Mirror(origin, folder)
    done = threading.Event()

    def go() -> None:
        while not done.wait(_MIRROR_S):
            with limited(_BRIEF_S):
                mirror.round()

    thread = threading.Thread(target=go, name="mirror", daemon=True)
    thread.start()
    try:
        yield
    except BaseException:
        done.set()
        thread.join()
        with limited(_BRIEF_S):  # it may be the storage that failed
            mirror.round(last=True)
        raise
    done.set()
    thread.join()
    mirror.round(last=True)


def mirror(folder: Path) -> None:
    """Copy what is in a sweep's folder to the storage that it belongs to, if any."""
    with mirrored(folder):
        pass


class _Mirror:
    def __init__(self, origin: Origin, folder: Path) -> None:
        self._origin = origin
        self._folder = folder
        self._seen: dict[Path, tuple[int, int]] = {}
        self._rounds = 0

    def round(self, last: bool = False) -> None:
        """Copy what has changed since the last round."""
        self._rounds += 1
        for path in sorted(self._folder.rglob("*")):
            inside = path.relative_to(self._folder)
            if inside.parts[0] in _NOT_MIRRORED or path.name.startswith(".") or path.suffix == ".tmp":
                continue
            try:
                status = path.lstat()
                stamp = (status.st_mtime_ns, status.st_size)
                rare = status.st_size > _LARGE and self._rounds % _LARGE_EVERY and not last
                if S_ISREG(status.st_mode) and self._seen.get(path) != stamp and not rare:
                    self._origin.remote.push(path, self._origin.key(path))
                    self._seen[path] = stamp
            except FileNotFoundError:
                continue  # it has gone, or got another name, in this moment
            except (OSError, StorageLost):
                return  # the next round, or the next driver, tries again


@functools.lru_cache
def _connected(uri: str) -> Remote:
    from raykd.storage.remote import Remote

    return Remote.connect(uri)
