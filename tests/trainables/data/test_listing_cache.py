"""A folder is read once a node, and its listing is never used when it does not hold."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import pytest

import trainables.data.sources.parts.listing_cache as cache
from trainables.core.errors import UserError
from trainables.core.files import cache_folder
from trainables.data.sources.parts.files import Files, read_files

PNG = (".png",)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Pictures in three folders, one of them linked, that were made an hour ago."""
    (tmp_path / "cache").mkdir()
    monkeypatch.setenv("RAYKD_CACHE", str(tmp_path / "cache"))
    root = tmp_path / "data"
    for name in ("a/1.png", "a/2.png", "b/c/3.png", "b/notes.txt", "b/\udcff.png"):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode(errors="surrogateescape"))
    (root / "d").symlink_to(root / "a")
    (root / "gone.txt").symlink_to(root / "nowhere")
    age(root)
    return root


def age(root: Path, seconds: float = 3600) -> None:
    """Set back the times of change of all folders."""
    then = time.time() - seconds
    for path in (root, *root.rglob("*")):
        if path.is_dir():
            os.utime(path, (then, then))


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The folders that were really read."""
    seen: list[Path] = []

    def read(folder: Path, endings: tuple[str, ...]) -> Files:
        seen.append(folder)
        return read_files(folder, endings)

    monkeypatch.setattr(cache, "read_files", read)
    return seen


def test_it_is_read_once(folder: Path, reads: list[Path]) -> None:
    whole = read_files(folder, PNG)
    for _ in range(3):
        found = cache.find_files(folder, PNG)
        assert (found.paths, found.digest) == (whole.paths, whole.digest)
        assert found.skipped() == whole.skipped() and len(found.links) == 1
        assert cache.files_digest(folder, PNG) == whole.digest
    assert reads == [folder]
    assert cache.files_digest(folder, (".txt",)) != whole.digest and len(reads) == 2


def replaced(path: Path) -> None:
    """As rsync, and tools that write beside a file and rename."""
    path.with_suffix(".new").write_bytes(b"another picture")
    path.with_suffix(".new").rename(path)


CHANGES: dict[str, Callable[[Path], object]] = {
    "added": lambda root: (root / "b" / "c" / "4.png").touch(),
    "removed": lambda root: (root / "a" / "1.png").unlink(),
    "renamed": lambda root: (root / "a" / "1.png").rename(root / "a" / "0.png"),
    "moved": lambda root: (root / "a" / "1.png").rename(root / "b" / "c" / "1.png"),
    "replaced": lambda root: replaced(root / "a" / "1.png"),
    "a new folder": lambda root: (root / "e").mkdir(),
    "a folder less": lambda root: shutil.rmtree(root / "b" / "c"),
    "a link elsewhere": lambda root: ((root / "d").unlink(), (root / "d").symlink_to(root / "b" / "c")),
}


@pytest.mark.parametrize("what", CHANGES)
def test_a_changed_folder_is_read_again(folder: Path, reads: list[Path], what: str) -> None:
    before = cache.files_digest(folder, PNG)
    CHANGES[what](folder)
    found = cache.find_files(folder, PNG)
    assert len(reads) == 2 and found.paths == read_files(folder, PNG).paths
    assert found.digest == read_files(folder, PNG).digest
    assert (found.digest == before) == (what == "a new folder")


def test_a_new_process_and_the_preparation_read_again(
    folder: Path, reads: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    before = cache.files_digest(folder, PNG)
    (folder / "a" / "1.png").write_bytes(b"a longer content in the same place")  # the folder looks the same
    assert cache.files_digest(folder, PNG) == before
    with cache.fresh_listings():
        after = cache.files_digest(folder, PNG)
        assert after == cache.files_digest(folder, PNG) != before
    assert cache.files_digest(folder, PNG) == after and len(reads) == 2
    monkeypatch.setattr(cache, "_fresh_since", cache.ContextVar("later", default=time.time() + 1))
    cache.files_digest(folder, PNG)
    assert len(reads) == 3


def test_a_folder_that_is_being_changed_is_not_kept(folder: Path, reads: list[Path]) -> None:
    age(folder, seconds=0.5)
    for _ in range(2):
        cache.files_digest(folder, PNG)
    assert len(reads) == 2 and not list((cache_folder() / "listings").glob("[0-9a-f]" * 16))


@pytest.mark.parametrize("damage", [lambda c: c[:-3], lambda c: c[:40], lambda c: b"", lambda c: b"9" + c])
def test_a_damaged_listing_is_not_used(
    folder: Path, reads: list[Path], damage: Callable[[bytes], bytes]
) -> None:
    whole = cache.find_files(folder, PNG)
    (kept,) = (cache_folder() / "listings").glob("[0-9a-f]" * 16)
    kept.write_bytes(damage(kept.read_bytes()))
    assert cache.find_files(folder, PNG).paths == whole.paths and len(reads) == 2
    assert cache.find_files(folder, PNG).paths == whole.paths and len(reads) == 2


def test_without_a_cache_it_is_read(folder: Path, reads: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAYKD_CACHE", str(folder / "a" / "1.png"))
    assert len(cache.find_files(folder, PNG).paths) == 6
    with pytest.raises(UserError, match="no files ending in"):
        cache.find_files(folder, (".webp",))


def test_without_a_cache_folder_nothing_is_written(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAYKD_CACHE", str(tmp_path / "none"))
    assert len(cache.find_files(folder, PNG).paths) == 6
    assert not (tmp_path / "none").exists()
