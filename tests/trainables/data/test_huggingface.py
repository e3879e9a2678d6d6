"""Data sets that the package `datasets` saved: by itself where it is installed, and by hand."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from pictures import encoded, opened, pixels
from PIL import Image

from trainables.core.errors import UserError
from trainables.data.data_sets import check_data, open_data
from trainables.spec.trial import DataSpec


def write(
    folder: Path, labels: list[int | None], names: list[str] | None = None, files: int = 1
) -> np.ndarray:
    """A `Dataset` as `save_to_disk` leaves it."""
    folder.mkdir(parents=True)
    images, parts = pixels(len(labels), 8), np.array_split(np.arange(len(labels)), files)
    state = [f"data-{i:05}-of-{files:05}.arrow" for i in range(files)]
    for name, rows in zip(state, parts, strict=True):
        content = [{"bytes": encoded(images[i]), "path": f"{i}.png"} for i in rows]
        table = pa.table({"image": content, "label": pa.array([labels[i] for i in rows], pa.int64())})
        if names:
            info = {"info": {"features": {"label": {"names": names, "_type": "ClassLabel"}}}}
            table = table.replace_schema_metadata({"huggingface": json.dumps(info)})
        with pa.OSFile(str(folder / name), "wb") as file, pa.ipc.new_stream(file, table.schema) as writer:
            writer.write_table(table, max_chunksize=3)
    (folder / "cache-0123.arrow").write_bytes(b"of a filter")
    (folder / "state.json").write_text(json.dumps({"_data_files": [{"filename": name} for name in state]}))
    return images


def test_splits(tmp_path: Path) -> None:
    raw = tmp_path / "raw"
    images = write(raw / "train", [0, 1, 1, 0, None, -1, 1], ["cat", "dog", "eel"], files=2)
    write(raw / "test", [2, 0], ["cat", "dog", "eel"])
    (raw / "dataset_dict.json").write_text('{"splits": ["train", "test"]}')
    assert opened(raw, tmp_path / "cache", "huggingface") == ([0, 1, 1, 0, -1, -1, 1], [2, 0], 3)
    assert check_data(DataSpec(name="huggingface", path=raw)).class_names == ("cat", "dog", "eel")
    data = open_data(DataSpec(name="huggingface", path=raw, image_size=8), tmp_path / "cache")
    np.testing.assert_array_equal(data.train.take(np.arange(7)).numpy().transpose(0, 2, 3, 1), images)


def test_what_the_package_writes(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    images = pixels(9, 8)
    turned = Image.Exif()
    turned[0x0112] = 3  # upside down
    files = [io.BytesIO() for _ in images]
    for file, image in zip(files, images, strict=True):
        Image.fromarray(image).save(file, "PNG", exif=turned)
    rows = {
        "image": [{"bytes": file.getvalue(), "path": None} for file in files],
        "label": [0, 1, 2] * 3,
    }
    features = datasets.Features(image=datasets.Image(), label=datasets.ClassLabel(names=["a", "b", "c"]))
    every = datasets.Dataset.from_dict(rows, features=features)
    parts = {"train": every.select(range(6)), "validation": every.select([8, 7, 6])}
    datasets.DatasetDict(parts).save_to_disk(tmp_path / "dict", num_shards={"train": 2, "validation": 1})
    every.save_to_disk(tmp_path / "one")
    for name, part in parts.items():
        (tmp_path / "hub" / "data").mkdir(parents=True, exist_ok=True)
        part.to_parquet(tmp_path / "hub" / "data" / f"{name}-00000-of-00001.parquet")
    for name in ("dict", "hub"):
        found = opened(tmp_path / name, tmp_path / "cache", "huggingface")
        assert found == ([0, 1, 2, 0, 1, 2], [2, 1, 0], 3), name
        spec = DataSpec(name="huggingface", path=tmp_path / name, image_size=8)
        data = open_data(spec, tmp_path / "cache")
        assert check_data(spec).class_names == ("a", "b", "c") and data.test is not None
        for part, want in ((data.train, images[:6]), (data.test, images[[8, 7, 6]])):
            got = part.take(np.arange(len(part))).numpy().transpose(0, 2, 3, 1)
            np.testing.assert_array_equal(got, want[:, ::-1, ::-1])
    assert opened(tmp_path / "one", tmp_path / "cache", "huggingface") == ([0, 1, 2] * 3, None, 3)


def test_bad_data_sets(tmp_path: Path) -> None:
    write(tmp_path / "cut", [0, 1, 0, 1])
    file = tmp_path / "cut" / "data-00000-of-00001.arrow"
    file.write_bytes(file.read_bytes()[:700])
    write(tmp_path / "rows", [0, 1])
    (tmp_path / "rows" / "state.json").write_text('{"_data_files": [], "_indices_data_files": [{}]}')
    write(tmp_path / "none", [0, 1])
    (tmp_path / "none" / "state.json").write_text('{"_data_files": [{"filename": "elsewhere.arrow"}]}')
    write(tmp_path / "odd", [0, 1])
    (tmp_path / "odd" / "state.json").write_text("[]")
    for name, message in {
        "cut": "cannot be read as Arrow",
        "rows": "selects rows by a file of indices",
        "none": "no file of .* belongs to a saved data set",
        "odd": "state.json cannot be read",
    }.items():
        with pytest.raises(UserError, match=message):
            check_data(DataSpec(name="huggingface", path=tmp_path / name))
