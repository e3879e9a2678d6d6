"""An object store, or anything else that pyarrow has a file system for, by its URI.

    remote = Remote.connect("s3://bucket/sweeps?region=eu-west-1")
    remote.put("wide/ledger/0", b"...")   # whole, and readable by everyone, when this returns

Keys are relative to the URI. Every call is tried again as `trainables/core/storage_retry.py` says; where that
does not help it raises `StorageLost`.
"""

from __future__ import annotations

import contextlib
import os
import re
import uuid
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple, TypeVar

from pyarrow import fs

from raykd.storage.uri import open_uri, shown
from trainables.core.errors import StorageLost, UserError
from trainables.core.files import opened, replacing
from trainables.core.storage_retry import retry_seconds, with_retry

_FIRST_ANSWER_S = 10.0  # how long a storage may take to answer before anything was started
_ATOMIC = ("s3", "gcs", "abfs")  # an object appears there with all of its content
_CHUNK = 8 << 20
# What a storage answers to a request that it will always refuse.
_REFUSED = re.compile(
    r"ACCESS.?DENIED|INVALID.?ACCESS.?KEY|SIGNATURE.?DOES.?NOT.?MATCH|INVALID.?CLIENT|EXPIRED.?TOKEN"
    r"|INVALID.?TOKEN|UNRECOGNIZED.?CLIENT|HTTP response code 40[13]|UNAUTHENTICATED|PERMISSION.?DENIED"
    r"|OAuth2 access token|credentials",
    re.IGNORECASE,
)
_NO_BUCKET = re.compile(r"NO.?SUCH.?BUCKET|BucketNotFound|ContainerNotFound", re.IGNORECASE)
_CREDENTIALS = {
    "s3": "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, in ~/.aws, or as this machine's role",
    "gcs": "the file that GOOGLE_APPLICATION_CREDENTIALS names, from `gcloud auth application-default "
    "login`, or as this machine's service account",
    "abfs": "AZURE_CLIENT_ID and its like, from `az login`, or as this machine's managed identity",
}
T = TypeVar("T")


class Entry(NamedTuple):
    """A file or folder of the storage, as it is listed."""

    key: str
    size: int  # bytes; -1 of a folder
    changed: float  # unix seconds by the storage's own clock


class Remote:
    """One place on an object store. Safe to use from several threads."""

    def __init__(self, files: fs.FileSystem, root: str, uri: str) -> None:
        """The folder `root` of a file system; `uri` is for messages."""
        self.files = files
        self.root = root.rstrip("/")
        self.uri = uri
        self._atomic = files.type_name in _ATOMIC

    @classmethod
    def connect(cls, uri: str) -> Remote:
        """The storage at `uri`. `UserError` for a URI that cannot be one, or that holds a secret."""
        files, root = open_uri(uri)
        return cls(files, root, uri)

    def check(self) -> None:
        """`UserError` if the storage refuses us, has no such bucket, or does not answer in 10 seconds."""
        bucket = self.root.split("/")[0] if self._atomic else self.root

        def ask() -> fs.FileType:
            self.files.get_file_info(fs.FileSelector(self.root, allow_not_found=True))
            return self.files.get_file_info(bucket).type

        try:
            found = with_retry(
                lambda: _readable(ask),
                "it does not answer",
                passing=lambda error: _passing(error) and not _REFUSED.search(str(error)),
                limit=min(_FIRST_ANSWER_S, retry_seconds()),
            )
            if self._atomic and found == fs.FileType.NotFound:
                raise self._unusable(f"there is no bucket {bucket!r}", "one that is there: raykd makes none")
        except StorageLost as error:
            said = _said(error.__cause__) if isinstance(error.__cause__, OSError) else str(error)
            expected = "a server that runs; `?endpoint_override=HOST:PORT&scheme=http` for one's own"
            raise self._unusable(f"does not answer: {said}", expected) from None
        except OSError as error:
            where = _CREDENTIALS.get(self.files.type_name, "its own files")
            expected = f"credentials that may list, read and write there, in {where}"
            raise self._unusable(f"refuses us: {_said(error)}", expected) from None

    def check_writable(self) -> None:
        """`UserError` if nothing can be written or removed."""
        key = f".raykd-{uuid.uuid4().hex}"
        try:
            self._put(key, b"raykd")
            self.files.delete_file(self._path(key))
        except OSError as error:
            expected = "credentials that may list, read, write and delete there"
            raise self._unusable(f"cannot be written: {_said(error)}", expected) from None

    def get(self, key: str) -> bytes:
        """The content of a file. `FileNotFoundError` if there is none."""

        def read() -> bytes:
            with self.files.open_input_stream(self._path(key)) as stream:
                data: bytes = stream.read()
                return data

        return self._retried(read, key, "read")

    def put(self, key: str, data: bytes) -> None:
        """Write a file, over what is there. A reader sees the old content or the new one."""
        self._retried(lambda: self._put(key, data), key, "written")

    def push(self, path: Path, key: str) -> None:
        """Copy a file of this machine to the storage, in pieces, whole or not at all."""

        def copy() -> None:
            with opened(path) as file:
                size = os.fstat(file.fileno()).st_size
                if size <= _CHUNK:
                    self._put(key, file.read())
                    return
                # An error closes the stream, and what was written is a file: only a whole one gets the name.
                aside = self._path(f"{key}.{uuid.uuid4().hex[:8]}.tmp")
                try:
                    with self._writing(aside) as stream:
                        for start in range(0, size, _CHUNK):
                            stream.write(file.read(min(_CHUNK, size - start)))
                    if self.files.get_file_info(aside).size != size:
                        raise TimeoutError(110, "not all of it arrived")
                    self._rename(aside, self._path(key))
                except OSError:
                    with contextlib.suppress(OSError):
                        self.files.delete_file(aside)
                    raise

        self._retried(copy, key, "written")

    def pull(self, key: str, path: Path) -> bool:
        """Copy a file of the storage to this machine, whole or not at all; False if there is none."""

        def copy() -> None:
            with replacing(path) as temporary, self.files.open_input_stream(self._path(key)) as stream:
                size = stream.size() if stream.seekable() else None
                with opened(temporary, "wb") as file:
                    while piece := stream.read(_CHUNK):
                        file.write(piece)
                if size is not None and temporary.stat().st_size != size:
                    raise TimeoutError(110, "not all of it arrived")

        try:
            self._retried(copy, key, "read")
        except FileNotFoundError:
            return False
        return True

    def list(self, prefix: str, recursive: bool = True) -> list[Entry]:
        """The files below the folder `prefix` ("" for all), sorted by key; none if there is no such folder.

        If not `recursive`, the files and the folders that are right in it.
        """

        # Arrow finds no folders on Google's storage, so every name is read there.
        deep = recursive or self.files.type_name == "gcs"

        def look() -> list[Entry]:
            selector = fs.FileSelector(self._path(prefix), recursive=deep, allow_not_found=True)
            return [
                Entry(info.path[len(self.root) + 1 :], info.size if info.is_file else -1, _changed(info))
                for info in self.files.get_file_info(selector)
                if info.is_file or not deep
            ]

        found = self._retried(look, prefix, "listed")
        return sorted(found if deep == recursive else _right_in(prefix, found))

    def has(self, key: str) -> bool:
        """Is there such a file?"""
        path = self._path(key)
        return self._retried(lambda: bool(self.files.get_file_info(path).is_file), key, "looked for")

    def remove(self, key: str) -> None:
        """Remove a file, if it is there."""

        def delete() -> None:
            with contextlib.suppress(FileNotFoundError):
                self.files.delete_file(self._path(key))

        self._retried(delete, key, "removed")

    def _unusable(self, problem: str, expected: str) -> UserError:
        return UserError("--storage", problem, value=self.uri, expected=expected)

    def _put(self, key: str, data: bytes) -> None:
        path = self._path(key)
        aside = path if self._atomic else f"{path}.{uuid.uuid4().hex[:8]}.tmp"
        with self._writing(aside) as stream:
            stream.write(data)
        if aside != path:
            self._rename(aside, path)

    def _rename(self, source: str, target: str) -> None:
        if not self._atomic:
            self.files.move(source, target)
            return
        self.files.copy_file(source, target)  # object stores cannot rename
        self.files.delete_file(source)

    def _writing(self, path: str) -> fs.NativeFile:
        if not self._atomic:
            self.files.create_dir(path.rpartition("/")[0], recursive=True)
        return self.files.open_output_stream(path)

    def _path(self, key: str) -> str:
        return f"{self.root}/{key}" if key else self.root

    def _retried(self, work: Callable[[], T], key: str, verb: str) -> T:
        problem = f"{shown(self.uri, key)} cannot be {verb}"
        return with_retry(lambda: _readable(work), problem, passing=_passing)


def _right_in(prefix: str, files: Iterable[Entry]) -> set[Entry]:
    """Those of these files that are right in a folder, and the folders in it that hold the others."""
    start = len(prefix) + 1 if prefix else 0
    ends = [(file, file.key.find("/", start)) for file in files]
    return {file if end < 0 else Entry(file.key[:end], -1, 0.0) for file, end in ends}


def _readable(work: Callable[[], T]) -> T:
    try:
        return work()
    except FileNotFoundError:
        raise
    except OSError as error:
        if error.errno is None:  # Arrow's: a page of text, with one line that says what happened
            raise OSError(0, _said(error)) from error
        raise


def _said(error: BaseException) -> str:
    """The part of Arrow's error text that says what happened."""
    text = (getattr(error, "strerror", None) or str(error)).strip()
    found = re.search(r"AWS Error (\w+) during (\w+) operation: (.*)", text)
    if found is None and text.startswith("google::cloud::Status("):
        told = text.partition("(")[2].partition(" error_info=")[0].rpartition("a last message of ")[2]
        return told.split(". ")[0]
    if found is None:
        return text.splitlines()[0][:300] if text else type(error).__name__
    kind, _, detail = found.groups()
    detail = detail.split("; Details: ")[-1].partition(" (Request ID")[0].strip()
    bare = "" if detail in ("", "No response body.") else f" ({detail})"
    return kind.replace("_", " ").lower() + bare


def _passing(error: OSError) -> bool:
    """Whether to try again: always, unless there is no such file or bucket."""
    return not isinstance(error, FileNotFoundError) and not _NO_BUCKET.search(str(error))


def _changed(info: fs.FileInfo) -> float:
    return info.mtime.timestamp() if info.mtime is not None else 0.0
