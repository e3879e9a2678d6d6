"""Folders of image files: each layout is read as its docstring says, anything else is refused."""

from pathlib import Path

import pytest
from pictures import encoded, opened, pixels, put

from trainables.data import check_data, open_data
from trainables.errors import UserError
from trainables.trial import DataSpec


def write_tree(root: Path, *paths: str) -> None:
    for path in paths:
        put(root / path, encoded(pixels(1, 10)[0], "jpeg" if path.endswith("jpg") else "png"))


LAYOUTS = {
    "train and val": (
        ["train/cat/1.jpg", "train/cat/2.png", "train/dog/1.jpg", "val/dog/1.jpg", "val/cat/deep/er/1.JPG"],
        ([0, 0, 1], [0, 1], 2),
    ),
    "test before val": (["train/a/1.jpg", "train/b/1.jpg", "test/b/1.jpg", "val/a/1.jpg"], ([0, 1], [1], 2)),
    "flat test": (["train/a/1.jpg", "train/b/1.jpg", "test/1.jpg", "val/a/1.jpg"], ([0, 1], [0], 2)),
    "capitals": (["Train/a/1.jpg", "Train/b/1.jpg", "Test/b/1.jpg"], ([0, 1], [1], 2)),
    "classes only": (["b/1.jpg", "a/1.jpg", "a/2.jpg", "stray.jpg"], ([0, 0, 1], None, 2)),
    "flat": (["1.jpg", "2.png"], ([-1, -1], None, 0)),
    "flat train": (["train/1.jpg", "train/2.png", "test/a/1.jpg", "test/b/1.jpg"], ([-1, -1], None, 0)),
    "one class is none": (["a/1.jpg", "a/2.jpg"], ([-1, -1], None, 0)),
    "unlabelled beside": (
        ["train/a/1.jpg", "train/b/1.jpg", "unlabelled/x/1.jpg", "unlabelled/2.jpg"],
        ([0, 1, -1, -1], None, 2),
    ),
    "hidden": (["a/1.jpg", "b/1.jpg", ".git/c/1.jpg", "__MACOSX/d/1.jpg", "a/.2.jpg"], ([0, 1], None, 2)),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_folder_layouts(layout: str, tmp_path: Path) -> None:
    paths, want = LAYOUTS[layout]
    write_tree(tmp_path / "raw", *paths)
    assert opened(tmp_path / "raw", tmp_path / "cache") == want


def test_folder_with_a_corrupt_file(tmp_path: Path) -> None:
    write_tree(
        tmp_path / "raw", *(f"{c}/{i}.{kind}" for c in "ab" for i in range(3) for kind in ("jpg", "png"))
    )
    broken = tmp_path / "raw" / "a" / "1.jpg"
    broken.write_bytes(broken.read_bytes()[:200])
    spec = DataSpec(name="folder", path=tmp_path / "raw", image_size=8)
    with pytest.raises(UserError, match=r"1 of 12 images cannot be decoded: .*a/1.jpg"):
        open_data(spec, tmp_path / "cache")
    lenient = spec.model_copy(update={"max_undecodable": 0.1})
    assert open_data(lenient, tmp_path / "cache").train.labels.tolist() == [0] * 5 + [1] * 6


def test_folder_links(tmp_path: Path) -> None:
    write_tree(tmp_path / "elsewhere", "1.jpg", "2.jpg")
    write_tree(tmp_path / "raw", "a/1.jpg")
    (tmp_path / "raw" / "b").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "raw" / "a" / "round").symlink_to(tmp_path / "raw")
    labels = opened(tmp_path / "raw", tmp_path / "cache")[0]
    assert labels == [0, 1, 1]


@pytest.mark.parametrize(
    ("paths", "message"),
    [
        (["notes.txt"], "no files ending in .jpg"),
        (["val/a/1.jpg", "val/b/1.jpg"], "has val/ and no train/"),
        (["train/cat/1.jpg", "train/dog/1.jpg", "test/dogs/1.jpg"], "lack .*'dogs'.*Did you mean 'dog'"),
    ],
)
def test_bad_folders(tmp_path: Path, paths: list[str], message: str) -> None:
    for path in paths:
        put(tmp_path / path, encoded(pixels(1, 10)[0]))
    with pytest.raises(UserError, match=message):
        check_data(DataSpec(name="folder", path=tmp_path))


@pytest.mark.parametrize("name", ["folder", "parquet"])
def test_folder_path_is_needed(name: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is needed by the source"):
        check_data(DataSpec(name=name))
    with pytest.raises(UserError, match="no such folder"):
        check_data(DataSpec(name=name, path=tmp_path / "nowhere"))
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="is a file, not a folder"):
        check_data(DataSpec(name=name, path=tmp_path / "file"))
