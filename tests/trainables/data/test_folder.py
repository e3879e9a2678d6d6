"""Folders of image files: each layout is read as its docstring says, anything else is refused."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from pictures import encoded, opened, pixels, put

from trainables.core.errors import UserError
from trainables.data.data_sets import check_data, check_pictures, open_data
from trainables.data.sources.parts.listing_cache import find_files
from trainables.data.summary import tell_data
from trainables.spec.trial import DataSpec


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


def test_links_that_lead_nowhere_are_counted(tmp_path: Path) -> None:
    raw = tmp_path / "raw"
    write_tree(raw, *(f"{name}/{i}.png" for name in "ab" for i in range(6)))
    (raw / "a" / "self.png").symlink_to("self.png")
    (raw / "a" / "dead.png").symlink_to("/nowhere/1.png")
    os.mkfifo(raw / "b" / "pipe.png")
    (raw / "b" / "device.png").symlink_to("/dev/zero")
    (raw / "c").symlink_to("/nowhere")
    (raw / "d").symlink_to("d")
    (raw / "a" / "clip.gif").touch()
    spec = DataSpec(name="folder", path=raw, image_size=8, max_undecodable=0.5)
    assert check_data(spec).train_images + check_data(spec).validation_images == 16
    assert tell_data(spec, tmp_path / "cache")["undecodable"] is None
    data = open_data(spec, tmp_path / "cache")
    assert data.train.labels.tolist() == [0] * 6 + [1] * 6 and "4 of 16 images" in data.left_out
    assert all(name in data.left_out for name in ("self.png", "dead.png", "pipe.png", "device.png"))
    told = tell_data(spec, tmp_path / "cache")
    assert told["undecodable"] == 4
    lines = "\n".join(told["lines"])
    for said in ("*.gif (1; by their ending)", "c (a link that leads nowhere)", "d (a link", "4 of 16: "):
        assert said in lines
    with pytest.raises(UserError, match="4 of 16 images cannot be decoded"):
        open_data(spec.model_copy(update={"max_undecodable": 0.1}), tmp_path / "cache")


def test_broken_pictures_come_first(tmp_path: Path) -> None:
    write_tree(tmp_path, *(f"{name}/{i:03}.png" for name in "ab" for i in range(50)))
    for i in range(9):
        (tmp_path / "a" / f"!{i}.png").write_bytes(b"no picture")
    spec = DataSpec(name="folder", path=tmp_path, image_size=8, max_undecodable=0.1)
    check_pictures(spec)  # nine of 109 may be broken
    with pytest.raises(UserError, match=r"none of the first 8 pictures .*!0.png \(UnidentifiedImageError: "):
        check_pictures(spec.model_copy(update={"max_undecodable": 0.01}))


def test_folders_that_link_in_a_circle_are_listed_in_time(tmp_path: Path) -> None:
    names = [f"c{i}" for i in range(7)]
    write_tree(tmp_path, *(f"{name}/1.png" for name in names))
    for name in names:
        for other in set(names) - {name}:
            (tmp_path / name / other).symlink_to(tmp_path / other)
    found = find_files(tmp_path, (".png",))
    # Each by itself, through one link and through two: 7 + 7·6 + 7·6·5; a third is not followed.
    assert len(found.paths) == 7 + 42 + 210 and found.links


def unreadable(folder: Path, cache: Path) -> str:
    """What a process without root's right to read everything says of a data set."""
    code = (
        "import sys; from pathlib import Path; from trainables.data.data_sets import open_data;"
        "from trainables.spec.trial import DataSpec; path, cache = map(Path, sys.argv[1:]);"
        "spec = DataSpec(name='folder', path=path, image_size=8, max_undecodable=.5);"
        "print(open_data(spec, cache).left_out)"
    )
    drop = ["setpriv", "--bounding-set=-dac_override,-dac_read_search"] if os.geteuid() == 0 else []
    done = subprocess.run(
        [*drop, sys.executable, "-c", code, str(folder), str(cache)],
        capture_output=True,
        text=True,
        check=False,
    )
    return done.stdout + done.stderr


@pytest.mark.skipif(os.geteuid() == 0 and shutil.which("setpriv") is None, reason="root reads everything")
def test_what_may_not_be_read(tmp_path: Path) -> None:
    raw = tmp_path / "raw"
    write_tree(raw, *(f"{name}/{i}.png" for name in "ab" for i in range(4)))
    (raw / "lost+found").mkdir(mode=0)  # a disk's own
    (raw / "a" / "1.png").chmod(0)
    said = unreadable(raw, tmp_path / "cache")
    assert "1 of 8 images cannot be decoded" in said and "a/1.png (PermissionError" in said, said
    (raw / "b").chmod(0)
    try:
        said = unreadable(raw, tmp_path / "cache")
    finally:
        (raw / "b").chmod(0o755)
    assert "UserError: data.path" in said and f"Expected the right to read {raw}/b" in said, said


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


@pytest.mark.parametrize("name", ["folder", "parquet", "huggingface", "webdataset"])
def test_folder_path_is_needed(name: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is needed by the source"):
        check_data(DataSpec(name=name))
    with pytest.raises(UserError, match="no such folder"):
        check_data(DataSpec(name=name, path=tmp_path / "nowhere"))
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="is a file, not a folder"):
        check_data(DataSpec(name=name, path=tmp_path / "file"))
