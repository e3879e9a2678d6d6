"""Parquet files in the Hugging Face image layout, good and bad."""

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pictures import encoded, opened, pixels

from trainables.data import check_data, open_data
from trainables.errors import UserError
from trainables.trial import DataSpec


def write_parquet(path: Path, labels: list[int | None] | None, **more: object) -> np.ndarray:
    """A file of PNG images as Hugging Face's `datasets` writes it."""
    count = len(labels) if labels is not None else 5
    images = pixels(count, 8)
    column = more.get("column", "image")
    content: dict[str, object] = {
        str(column): [{"bytes": encoded(image), "path": f"{i}.png"} for i, image in enumerate(images)]
    }
    if labels is not None:
        content[str(more.get("label", "label"))] = labels
    table = pa.table(content)
    if names := more.get("names"):
        info = {"info": {"features": {"label": {"names": names, "_type": "ClassLabel"}}}}
        table = table.replace_schema_metadata({"huggingface": json.dumps(info)})
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path, row_group_size=3)
    return images


def test_parquet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trainables.sources.parquet.BATCH_ROWS", 4)  # across row groups of 3
    raw = tmp_path / "raw"
    first = write_parquet(
        raw / "data" / "train-00000-of-00002.parquet", [0, 1, 2, 0, 1, 2, 0], names=["a"] * 7
    )
    second = write_parquet(raw / "data" / "train-00001-of-00002.parquet", [1, None, -1])
    test = write_parquet(raw / "data" / "test-00000-of-00001.parquet", [2, 0])
    assert opened(raw, tmp_path / "cache", "parquet") == ([0, 1, 2, 0, 1, 2, 0, 1, -1, -1], [2, 0], 7)
    data = open_data(DataSpec(name="parquet", path=raw, image_size=8), tmp_path / "cache")
    assert data.test is not None
    for part, images in ((data.train, np.concatenate([first, second])), (data.test, test)):
        got = part.take(np.arange(len(part))).numpy()
        np.testing.assert_array_equal(got.transpose(0, 2, 3, 1), images)


def test_parquet_layouts(tmp_path: Path) -> None:
    write_parquet(tmp_path / "a" / "0.parquet", [0, 1, 1], column="img", label="fine_label")
    assert opened(tmp_path / "a", tmp_path / "cache", "parquet") == ([0, 1, 1], None, 2)
    write_parquet(tmp_path / "b" / "train" / "0.parquet", [0, 1, 1])
    write_parquet(tmp_path / "b" / "validation" / "0.parquet", [1, -1])
    write_parquet(tmp_path / "b" / "test" / "0.parquet", [-1, -1])  # a test part without labels is none
    write_parquet(tmp_path / "b" / "unlabelled" / "0.parquet", [0, 0])
    assert opened(tmp_path / "b", tmp_path / "cache", "parquet") == ([0, 1, 1, -1, -1], [1], 2)
    write_parquet(tmp_path / "c" / "0.parquet", None)
    assert opened(tmp_path / "c", tmp_path / "cache", "parquet") == ([-1] * 5, None, 0)


def test_parquet_with_broken_images(tmp_path: Path) -> None:
    good = {"bytes": encoded(pixels(1, 8)[0]), "path": None}
    rows = [good] * 6 + [{"bytes": None, "path": "gone.png"}, {"bytes": b"no image", "path": None}, None]
    table = pa.table({"image": rows, "label": [0, 1] * 4 + [0]})
    (tmp_path / "raw").mkdir()
    pq.write_table(table, tmp_path / "raw" / "x.parquet")
    spec = DataSpec(name="parquet", path=tmp_path / "raw", image_size=8, max_undecodable=0.5)
    assert open_data(spec, tmp_path / "cache").train.labels.tolist() == [0, 1] * 3
    with pytest.raises(UserError, match=r"3 of 9 images .*x.parquet row 6 .*row 7 .*row 8"):
        open_data(spec.model_copy(update={"max_undecodable": 0.1}), tmp_path / "cache")


def test_bad_parquet(tmp_path: Path) -> None:
    def refused(message: str) -> None:
        with pytest.raises(UserError, match=message):
            check_data(DataSpec(name="parquet", path=tmp_path))

    refused("no files ending in .parquet")
    file = tmp_path / "train.parquet"
    pq.write_table(pa.table({"text": ["a"], "label": [0]}), file)
    refused(r"has no images \(text: string, label: int64\)")
    pq.write_table(pa.table({"image": [{"bytes": b""}], "label": ["cat"]}), file)
    refused("'label' of .* holds string")
    write_parquet(file, [0, -2])
    refused("has a label -2")
    write_parquet(file, [0, 1])
    write_parquet(tmp_path / "test.parquet", [2])
    refused("test part has .*label 2")
    file.write_bytes(file.read_bytes()[:100])
    refused("train.parquet cannot be read as Parquet")
    file.unlink()
    refused("no file below .* is for training")


def test_parquet_damaged_in_the_middle(tmp_path: Path) -> None:
    file = tmp_path / "raw" / "train.parquet"
    write_parquet(file, [0, 1] * 50)
    content = bytearray(file.read_bytes())
    content[len(content) // 3 : len(content) // 3 + 4000] = bytes(4000)
    file.write_bytes(content)
    with pytest.raises(UserError, match="data"):
        open_data(DataSpec(name="parquet", path=tmp_path / "raw", image_size=8), tmp_path / "cache")
    assert not [path for path in (tmp_path / "cache" / "images").iterdir() if path.is_dir()]
