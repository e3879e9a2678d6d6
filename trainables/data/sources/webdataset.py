"""The source `webdataset`: tar archives of pictures, in the layout of the package webdataset.

    DIR/train-0000.tar, DIR/train-0001.tar, DIR/test-0000.tar …      `parts/tables.py` says which are for what

In an archive, files whose names are the same up to the first dot and that follow one another are one sample:

    n01440764_18.jpg, n01440764_18.cls       a picture, and its label in digits or as a word
    n01440764_18.jpg, n01440764_18.json      likewise; the label is the entry label, labels, cls or class

A sample without a picture is skipped, and one without a label has none. Archives may be compressed
(`.tar.gz`, `.tgz`). To count samples and labels every archive is read once; the result lies in the cache, by
the archive's place, size and time.
"""

from __future__ import annotations

import hashlib
import json
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa

from trainables.core.errors import UserError
from trainables.core.files import cache_folder, read_bytes, replacing
from trainables.core.heartbeat import heartbeat
from trainables.data.sources.folder import ENDINGS
from trainables.data.sources.parts.table_labels import as_labels
from trainables.data.sources.parts.tables import Table, TableSource

_LABEL, _FACTS = "cls", "json"
_KEYS = ("label", "labels", "cls", "class")  # of a label in a sample's JSON, the first counts
_VERSION = 1


class _Row(NamedTuple):
    """A sample that has a picture."""

    name: str
    picture: bytes
    label: int | str | None


class TarTable(Table):
    """One archive."""

    def __init__(self, path: Path) -> None:
        self.path = path
        labels = _kept_labels(path)
        if len({type(label) for label in labels if label is not None}) > 1:
            raise UserError("data.path", f"{path} has numbers and words for labels", expected="one kind")
        some = any(label is not None for label in labels)
        values = pa.array(labels, None if some else pa.int64())
        self.labels = as_labels(path, _LABEL, values)
        if not some:
            self.labels = self.labels._replace(column=None)

    def pictures(self) -> Iterator[tuple[str, bytes]]:
        for row in _rows(self.path, pictures=True):
            yield f"{self.path} {row.name}", row.picture


class WebDataset(TableSource):
    """The data source `webdataset`."""

    name = "webdataset"
    summary = "a folder of tar archives in WebDataset's layout: 0001.jpg beside 0001.cls or 0001.json"
    endings = (".tar", ".tar.gz", ".tgz")
    content = "tar-files"
    label_fields = (_LABEL, _FACTS)

    def table(self, path: Path) -> Table:
        heartbeat(f"reading the index of {path.name}")
        return TarTable(path)


def _kept_labels(path: Path) -> list[int | str | None]:
    """The label of each picture in an archive, from the cache if the archive was read before."""
    try:
        status = path.stat()
    except OSError as error:
        raise UserError("data.path", f"{path} cannot be read: {error}") from error
    key = f"{_VERSION} {path.resolve()} {status.st_size} {status.st_mtime_ns}"
    place = cache_folder() / "listings" / f"tar-{hashlib.sha256(key.encode()).hexdigest()[:16]}.json"
    try:
        kept: list[int | str | None] = json.loads(read_bytes(place))["labels"]
        return kept
    except (OSError, ValueError, KeyError, TypeError):
        labels = [row.label for row in _rows(path, pictures=False)]
    try:
        with replacing(place) as temporary:
            temporary.write_text(json.dumps({"archive": str(path), "labels": labels}))
    except (OSError, UserError):
        pass  # it is read again the next time
    return labels


def _rows(path: Path, pictures: bool) -> Iterator[_Row]:
    """The samples of an archive that have a picture, whose bytes are read only with `pictures`."""
    name, files = "", dict[str, bytes]()
    try:
        with tarfile.open(path, "r:*") as tar:
            while (member := tar.next()) is not None:
                tar.members = []  # type: ignore[attr-defined]  # else it keeps all
                folder, _, file = member.name.rpartition("/")
                stem, _, ending = file.partition(".")
                if not member.isfile() or not stem or not ending:
                    continue
                if f"{folder}/{stem}" != name:
                    yield from _sample(path, name, files)
                    name, files = f"{folder}/{stem}", {}
                ending = ending.lower()
                wanted = ending in (_LABEL, _FACTS) or (pictures and _is_picture(ending))
                content = tar.extractfile(member) if wanted else None
                files[ending] = content.read() if content is not None else b""
            yield from _sample(path, name, files)
            _check_end(tar)
    except (tarfile.TarError, OSError, EOFError) as error:
        raise UserError("data.path", f"{path} cannot be read after {name!r}: {error}") from error


def _check_end(tar: tarfile.TarFile) -> None:
    """Raise `ReadError` for an archive that goes on, or ends, where no header can be read."""
    file = tar.fileobj
    assert file is not None
    file.seek(tar.offset)
    if file.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
        raise tarfile.ReadError("it is cut off or damaged")


def _is_picture(ending: str) -> bool:
    return f".{ending.rpartition('.')[2]}" in ENDINGS


def _sample(path: Path, name: str, files: dict[str, bytes]) -> Iterator[_Row]:
    """The sample that these files (ending -> content) make up, if one of them is a picture."""
    found = [ending for ending in files if _is_picture(ending)]
    plain = [ending for ending in found if "." not in ending] or found  # not `seg.png` beside `jpg`
    if len(plain) > 1:
        both = " and ".join(plain)
        problem = f"the sample {name.lstrip('/')} in {path} has several pictures: {both}"
        raise UserError("data.path", problem, expected="one picture a sample")
    if plain:
        yield _Row(name.lstrip("/"), files[plain[0]], _label(path, name, files))


def _label(path: Path, name: str, files: dict[str, bytes]) -> int | str | None:
    """The label of a sample; None if it has none."""
    if _LABEL in files:
        text = files[_LABEL].decode(errors="replace").strip()
        return int(text) if text.removeprefix("-").isdecimal() else text or None
    if _FACTS not in files:
        return None
    try:
        facts: Any = json.loads(files[_FACTS])
    except ValueError as error:
        problem = f"the JSON of the sample {name.lstrip('/')} in {path} cannot be read: {error}"
        raise UserError("data.path", problem) from error
    found = [facts[key] for key in _KEYS if key in facts] if isinstance(facts, dict) else []
    if found and isinstance(found[0], (int, str)) and not isinstance(found[0], bool):
        return found[0] if found[0] != "" else None
    return None


SOURCES = (WebDataset(),)
