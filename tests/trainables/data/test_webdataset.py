"""tar archives in WebDataset's layout: written by the package where it is installed, and by hand."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pictures import encoded, opened, pixels

from trainables.core.errors import UserError
from trainables.data.data_sets import check_data, open_data
from trainables.data.summary import tell_data
from trainables.spec.trial import DataSpec


def write(path: Path, files: dict[str, bytes], mode: str = "w") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, mode, format=tarfile.PAX_FORMAT) as tar:  # type: ignore[call-overload]
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))


def samples(*labels: Any, ending: str = "cls", first: int = 0) -> tuple[dict[str, bytes], np.ndarray]:
    """Files of an archive with a PNG a label; None: without a label."""
    images, files = pixels(len(labels), 8), {}
    for i, (image, label) in enumerate(zip(images, labels, strict=True), first):
        files[f"deep/{i:04}.PNG"] = encoded(image)
        if label is not None:
            files[f"deep/{i:04}.{ending}"] = (
                str(label).encode() if ending == "cls" else json.dumps({"label": label, "x": 1}).encode()
            )
    return files, images


def test_shards(tmp_path: Path) -> None:
    raw = tmp_path / "raw"
    parts = [samples(0, 1, 2), samples(1, None, 0, first=3), samples(2, 0, ending="json")]
    write(raw / "imagenet-train-000.tar", parts[0][0])
    write(raw / "imagenet-train-001.tar.gz", parts[1][0], "w:gz")
    write(raw / "imagenet-test-000.tar", parts[2][0])
    assert opened(raw, tmp_path / "cache", "webdataset") == ([0, 1, 2, 1, -1, 0], [2, 0], 3)
    data = open_data(DataSpec(name="webdataset", path=raw, image_size=8), tmp_path / "cache")
    assert data.test is not None
    for part, images in ((data.train, [parts[0][1], parts[1][1]]), (data.test, [parts[2][1]])):
        got = part.take(np.arange(len(part))).numpy().transpose(0, 2, 3, 1)
        np.testing.assert_array_equal(got, np.concatenate(images))


def test_what_the_package_writes(tmp_path: Path) -> None:
    webdataset = pytest.importorskip("webdataset")
    images = pixels(7, 8)
    with webdataset.ShardWriter(str(tmp_path / "train-%04d.tar"), maxcount=3, verbose=0) as shards:
        for i, image in enumerate(images):
            facts = {"cls": i % 2} if i < 5 else {"json": {"label": i % 2}}
            shards.write({"__key__": f"{i:05}", "png": image, "txt": "a caption", **facts})
    assert opened(tmp_path, tmp_path / "cache", "webdataset") == ([0, 1, 0, 1, 0, 1, 0], None, 2)
    data = open_data(DataSpec(name="webdataset", path=tmp_path, image_size=8), tmp_path / "cache")
    np.testing.assert_array_equal(data.train.take(np.arange(7)).numpy().transpose(0, 2, 3, 1), images)


def test_words_broken_pictures_and_other_files(tmp_path: Path) -> None:
    files, _ = samples("dog", "cat", "dog", "cat")
    files["deep/0001.PNG"] = files["deep/0001.PNG"][:60]
    extra = {"README": b"", ".hidden.jpg": b"", "notes.txt": b"a sample without a picture"}
    mask = {"x.png": encoded(pixels(1, 8)[0]), "x.seg.png": encoded(pixels(1, 8)[0]), "x.cls": b"cat"}
    write(tmp_path / "a.tar", {**extra, **files, **mask})
    spec = DataSpec(name="webdataset", path=tmp_path, image_size=8, max_undecodable=0.3)
    facts = check_data(spec)
    assert facts.class_names == ("cat", "dog") and facts.train_images + facts.validation_images == 5
    data = open_data(spec, tmp_path / "cache")
    assert data.train.labels.tolist() == [1, 1, 0, 0] and "a.tar deep/0001 (" in data.left_out


def test_without_labels(tmp_path: Path) -> None:
    write(tmp_path / "a.tar", samples(None, None)[0])
    assert opened(tmp_path, tmp_path / "cache", "webdataset") == ([-1, -1], None, 0)
    spec = DataSpec(name="webdataset", path=tmp_path)
    assert any("without labels" in line for line in tell_data(spec, tmp_path / "cache")["lines"])


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"1.jpg": b"", "1.png": b""}, "the sample 1 in .* has several pictures: jpg and png"),
        ({"1.jpg": b"", "1.cls": b"3", "2.jpg": b"", "2.cls": b"cat"}, "numbers and words for labels"),
        ({"1.jpg": b"", "1.json": b"{"}, "the JSON of the sample 1 .* cannot be read"),
        ({"1.jpg": b"", "1.cls": b"-2"}, "has a label -2"),
    ],
)
def test_bad_archives(tmp_path: Path, files: dict[str, bytes], message: str) -> None:
    write(tmp_path / "a.tar", files)
    with pytest.raises(UserError, match=message):
        check_data(DataSpec(name="webdataset", path=tmp_path))


def test_a_cut_archive_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "a.tar", samples(0, 1, 0)[0])
    content = (tmp_path / "a.tar").read_bytes()
    (tmp_path / "a.tar").write_bytes(content[: content.index(b"deep/0002") + 300])
    with pytest.raises(UserError, match=r"a\.tar cannot be read"):
        check_data(DataSpec(name="webdataset", path=tmp_path))
