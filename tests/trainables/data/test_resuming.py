"""Preparing goes on where a killed process stopped, and gives the same file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pictures import encoded, put

import trainables.data.store_writer
from trainables.data.data_sets import open_data, store_folder
from trainables.data.resumable_file import ResumableFile
from trainables.data.sources.base import Sample
from trainables.data.store_kinds import Kind
from trainables.spec.trial import DataSpec

COUNT = 128  # pictures to train on; half as many to test


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures of two classes, some of them broken, and a test part."""
    root, rng = tmp_path_factory.mktemp("pictures"), np.random.default_rng(0)
    for i in range(COUNT + COUNT // 2):
        split = "train" if i < COUNT else "test"
        content = encoded(rng.integers(0, 256, (20, 16, 3), np.uint8))
        put(root / split / f"class{i % 2}" / f"{i:03}.png", content if i % 20 else content[:60])
    return root


class Killed(BaseException):
    """As a signal: nothing is tidied up."""


def prepared(spec: DataSpec, cache: Path, kill_after: int | None = None) -> list[int]:
    """Images done at each call of `progress`."""
    calls: list[int] = []

    def progress(done: int, total: int) -> None:
        calls.append(done)
        if kill_after is not None and done >= kill_after:
            raise Killed

    open_data(spec, cache, progress)
    return calls


def spec_of(raw: Path, keep: str) -> DataSpec:
    usual = {"name": "folder", "path": raw, "image_size": 12, "max_undecodable": 0.2}
    return DataSpec.model_validate({**usual, "keep": keep, "fit": "whole"})


def files(spec: DataSpec, cache: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(store_folder(spec, cache).iterdir())}


@pytest.mark.parametrize("keep", ["raw", "jpeg"])
@pytest.mark.parametrize("kills", [(64,), (33, 97, 160)])
def test_what_was_converted_stays(
    raw: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, keep: str, kills: tuple[int, ...]
) -> None:
    monkeypatch.setattr(trainables.data.store_writer, "CHUNK_BYTES", 5000)
    spec = spec_of(raw, keep)
    prepared(spec, tmp_path / "whole")
    converted: list[str] = []
    convert = trainables.data.store_writer._convert

    def counted(sample: Sample, kind: Kind) -> Any:
        converted.append(sample.name)
        return convert(sample, kind)

    monkeypatch.setattr(trainables.data.store_writer, "_convert", counted)
    for kill in kills:
        with pytest.raises(Killed):
            prepared(spec, tmp_path / "killed", kill)
    first = len(converted)
    done = prepared(spec, tmp_path / "killed")
    assert done == sorted(done) and done[-1] == COUNT * 3 // 2
    # All but the last batch before the kill, and what was under way then, is there.
    assert len(converted) - first < COUNT * 3 // 2 - kills[-1] + 64 + 16
    assert files(spec, tmp_path / "killed") == files(spec, tmp_path / "whole")


def test_what_is_damaged_is_converted_again(
    raw: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trainables.data.store_writer, "CHUNK_BYTES", 5000)
    spec = spec_of(raw, "raw")
    prepared(spec, tmp_path / "whole")
    for damage in ("a bit", "the end", "the journal"):
        cache = tmp_path / damage
        with pytest.raises(Killed):
            prepared(spec, cache, 96)
        (half,) = (cache / "images").glob("*.tmp-half")
        file, journal = half / "train.arrow", half / "train.arrow.journal"
        content, lines = file.read_bytes(), journal.read_text()
        assert lines.count("\n") > 3
        if damage == "a bit":
            where = len(content) // 2
            file.write_bytes(content[:where] + bytes([content[where] ^ 1]) + content[where + 1 :])
        elif damage == "the end":
            file.write_bytes(content[: len(content) * 2 // 3])
        else:
            journal.write_text(lines[: len(lines) // 2])
        prepared(spec, cache)
        assert files(spec, cache) == files(spec, tmp_path / "whole"), damage


@given(st.lists(st.binary(min_size=1, max_size=40), min_size=1, max_size=8), st.data())
def test_a_file_is_the_same_whatever_was_there(pieces: list[bytes], data: st.DataObject) -> None:
    """`ResumableFile` alone: written to a point, damaged anywhere, written again."""
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "x"

        def write(count: int) -> None:
            file = ResumableFile(path)
            for i, piece in enumerate(pieces[:count]):
                file.write(piece)
                if i >= len(file.found):
                    file.note({"piece": i})
                else:
                    assert file.found[i] == {"piece": i}
            file.close()

        write(data.draw(st.integers(0, len(pieces))))
        content = bytearray(path.read_bytes())
        if content:
            content[data.draw(st.integers(0, len(content) - 1))] ^= data.draw(st.integers(0, 255))
            path.write_bytes(content[: data.draw(st.integers(0, len(content)))])
        write(len(pieces))
        assert path.read_bytes() == b"".join(pieces)
