"""Parquet files in the Hugging Face image layout, good and bad."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pictures import encoded, opened, pixels

from trainables.core.errors import UserError
from trainables.data.data_sets import check_data, open_data
from trainables.data.summary import tell_data
from trainables.spec.trial import DataSpec


def write_parquet(path: Path, labels: Any, **more: object) -> np.ndarray:
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
    monkeypatch.setattr("trainables.data.sources.parts.columns.BATCH_ROWS", 4)  # across row groups of 3
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
    write_parquet(tmp_path / "d" / "unlabelled.parquet", [0, 1, 1])
    assert opened(tmp_path / "d", tmp_path / "cache", "parquet") == ([-1] * 3, None, 0)
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
    pq.write_table(pa.table({"image": [{"bytes": b""}], "label": [[0]]}), file)
    refused("'label' of .* holds list")
    write_parquet(file, [0, -2])
    refused("has a label -2")
    write_parquet(file, [0, 1])
    write_parquet(tmp_path / "test.parquet", [2])
    refused("test part has .*label 2")
    file.write_bytes(file.read_bytes()[:100])
    refused("train.parquet cannot be read as Parquet")
    file.unlink()
    refused(r"has test.parquet and no train-\*.parquet: there is nothing to train on")


def test_parquet_damaged_in_the_middle(tmp_path: Path) -> None:
    file = tmp_path / "raw" / "train.parquet"
    write_parquet(file, [0, 1] * 50)
    content = bytearray(file.read_bytes())
    content[len(content) // 3 : len(content) // 3 + 4000] = bytes(4000)
    file.write_bytes(content)
    with pytest.raises(UserError, match="data"):
        open_data(DataSpec(name="parquet", path=tmp_path / "raw", image_size=8), tmp_path / "cache")
    assert not [path for path in (tmp_path / "cache" / "images").iterdir() if path.is_dir()]


def test_parts_by_the_hub_s_words(tmp_path: Path) -> None:
    layouts = {
        "sharded": ("data/train-00000-of-00001.parquet", "data/test-00000-of-00001.parquet"),
        "partial": ("partial-train/0000.parquet", "partial-test/0000.parquet"),
        "files": ("my_train_file.parquet", "my_test_file.parquet"),
        "under": ("under_train.parquet", "under_test.parquet"),
        "numbers": ("train1.parquet", "test1.parquet"),
        "words": ("default/training/0.parquet", "default/evaluation/0.parquet"),
        "short": ("trn.parquet", "tst.parquet"),
        "no word": ("a.parquet", "held/dev.parquet"),
        "told": ("x.parquet", "y.parquet"),
    }
    for name, (train, test) in layouts.items():
        write_parquet(tmp_path / name / train, [0, 1, 0])
        write_parquet(tmp_path / name / test, [1, 1])
        splits = {"train": ("x*",), "test": ("y*",)} if name == "told" else None
        spec = DataSpec(name="parquet", path=tmp_path / name, splits=splits, image_size=8)
        data = open_data(spec, tmp_path / "cache")
        assert data.test is not None, name
        assert (data.train.labels.tolist(), data.test.labels.tolist()) == ([0, 1, 0], [1, 1]), name


@pytest.mark.parametrize(
    ("files", "said"),
    [
        (["train.parquet", "extra.parquet"], r"two ways: .*train.parquet is the training part, and extra"),
        (["train.parquet", "test.parquet", "extra.parquet"], r"two ways: extra.parquet is trained on, too"),
        (["trainset.parquet", "testset.parquet"], "two ways: trainset.parquet and testset.parquet are two"),
        (["clean-00000-of-00001.parquet", "noisy-00000-of-00001.parquet"], "clean and noisy are two splits"),
        (
            ["train/test-0.parquet", "test/0.parquet"],
            r"two ways: train/test-0.parquet belongs to the part train",
        ),
        (["x/train.parquet", "y/train.parquet"], "several data sets"),
        (["train-val.parquet", "test.parquet"], r"train-val.parquet .*says train and validation at once"),
        (["test-00000-of-00001.parquet"], "nothing to train on"),
    ],
)
def test_parts_that_are_not_certain(files: list[str], said: str, tmp_path: Path) -> None:
    for file in files:
        write_parquet(tmp_path / file, [0, 1])
    with pytest.raises(UserError, match=said):
        check_data(DataSpec(name="parquet", path=tmp_path))


LABELS = {
    "ids": ([9001, 17, 17, None, 4], [17, 9001], ([2, 1, 1, -1, 0], [1, 2], 3)),
    "from one": ([1, 2, 3, 1], [3], ([0, 1, 2, 0], [2], 3)),
    "sparse": ([0, 5, 1], [5], ([0, 2, 1], [2], 3)),
    "huge": ([2**62, 5, 5], [2**62], ([1, 0, 0], [1], 2)),
    "words": (["dog", "cat", None, "", "dog"], ["cat"], ([1, 0, -1, -1, 1], [0], 2)),
    "floats": ([0.0, 1.0, float("nan"), None], [1.0], ([0, 1, -1, -1], [1], 2)),
    "booleans": ([True, False, True], [False], ([1, 0, 1], [0], 2)),
    "as they are": ([0, 2, 1, -1], [2, -1], ([0, 2, 1, -1], [2], 3)),
    "coded words": (pa.array(["b", "a", "b"]).dictionary_encode(), ["a"], ([1, 0, 1], [0], 2)),
    "coded ids": (pa.array([7, 3, 7]).dictionary_encode(), [3], ([1, 0, 1], [0], 2)),
    "bytes": (pa.array([200, 3, 3], pa.uint8()), pa.array([3], pa.int64()), ([1, 0, 0], [0], 2)),
    "one": ([7, 7], None, ([-1, -1], None, 0)),
    "none": (pa.nulls(2), None, ([-1, -1], None, 0)),
}


@pytest.mark.parametrize("kind", LABELS)
def test_labels_are_numbered_alike_in_all_parts(kind: str, tmp_path: Path) -> None:
    train, test, want = LABELS[kind]
    write_parquet(tmp_path / "raw" / "train.parquet", train)
    if test is not None:
        write_parquet(tmp_path / "raw" / "test.parquet", test)
    assert opened(tmp_path / "raw", tmp_path / "cache", "parquet") == want
    lines = tell_data(DataSpec(name="parquet", path=tmp_path / "raw"), tmp_path / "cache")["lines"]
    numbered = any("are numbered 0" in line for line in lines)
    assert numbered == (kind not in ("floats", "booleans", "as they are", "one", "none"))


@pytest.mark.parametrize(
    ("train", "test", "said"),
    [
        ([9001, 17], [18], "test part has the label 18"),
        (["dog", "cat"], ["cow"], "test part has the label cow"),
        (["dog", "cat"], [0], "test part has the label 0"),
        ([-1, 1, 1], None, "the only label is 1, beside rows without one"),
        ([0.5, 1.0], None, r"has a label 0\.5"),
        ([float("inf"), 1.0], None, "has a label inf"),
        (pa.array([2**63, 0], pa.uint64()), None, "has a label 9223372036854775808"),
        ([0, -7], None, "has a label -7"),
        (pa.array([1, 2], pa.timestamp("s")), None, "holds timestamp"),
    ],
)
def test_labels_that_are_none(train: Any, test: Any, said: str, tmp_path: Path) -> None:
    write_parquet(tmp_path / "train.parquet", train)
    if test is not None:
        write_parquet(tmp_path / "test.parquet", test)
    with pytest.raises(UserError, match=said):
        check_data(DataSpec(name="parquet", path=tmp_path))


def test_class_names_of_the_schema(tmp_path: Path) -> None:
    write_parquet(tmp_path / "train.parquet", [0, 1, 0], names=["cat", "dog", "cow"])
    write_parquet(tmp_path / "test.parquet", [1], names=["cat", "dog", "cow"])
    facts = check_data(DataSpec(name="parquet", path=tmp_path))
    assert (facts.classes, facts.class_names) == (3, ("cat", "dog", "cow"))
    write_parquet(tmp_path / "test.parquet", [1], names=["dog", "cat", "cow"])
    with pytest.raises(UserError, match="name the classes differently: 0 is cat and dog"):
        check_data(DataSpec(name="parquet", path=tmp_path))
