"""Which images a task learns from: draws of few labels, and lists of names."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from trainables.core.errors import UserError
from trainables.data.data_sets import open_data
from trainables.downstream.parts import check_list, drawn_ids, parts_of
from trainables.spec.parse import build
from trainables.spec.suite import FrozenTask
from trainables.spec.trial import DataSpec

LABELS = np.repeat(np.arange(4), [100, 60, 30, 3])
POOL = np.arange(1000, 1000 + len(LABELS))


def draw(labels: Any, split_seed: int = 0, seed: int = 0) -> np.ndarray:
    return drawn_ids(build(FrozenTask, {"labels": labels}), POOL, LABELS, split_seed, seed)


def of_each(ids: np.ndarray) -> list[int]:
    return np.bincount(LABELS[ids - 1000], minlength=4).tolist()


def test_a_share_is_drawn_class_by_class_at_least_one() -> None:
    assert of_each(draw(0.1)) == [10, 6, 3, 1]
    assert of_each(draw(0.01)) == [1, 1, 1, 1]
    assert of_each(draw({"per_class": 5})) == [5, 5, 5, 3]  # the last class has no more


def test_what_is_drawn_depends_on_both_seeds_and_more_labels_keep_the_fewer() -> None:
    tenth = draw(0.1)
    assert np.array_equal(tenth, draw(0.1))
    assert not np.array_equal(tenth, draw(0.1, seed=1)) and not np.array_equal(tenth, draw(0.1, split_seed=1))
    for fewer, more in ((0.01, 0.1), (0.1, 0.5), ({"per_class": 1}, {"per_class": 5})):
        assert set(draw(fewer)) < set(draw(more))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two classes of twelve pictures, of which one cannot be decoded, and a test split."""
    for split, count in (("train", 12), ("test", 2)):
        for name in ("cat", "dog"):
            place = tmp_path / "data" / split / name
            place.mkdir(parents=True)
            for i in range(count):
                Image.new("L", (16, 16), 20 * i).save(place / f"{name}_{i:02}.png")
    (tmp_path / "data/train/cat/cat_03.png").write_bytes(b"no picture")
    return tmp_path / "data"


def spec_of(folder: Path, **more: Any) -> DataSpec:
    return DataSpec(name="folder", path=folder, image_size=16, max_undecodable=0.1, **more)


def test_a_list_names_the_images_to_learn_from(folder: Path, tmp_path: Path) -> None:
    spec = spec_of(folder)
    data = open_data(spec, tmp_path / "cache")
    names = tmp_path / "names.txt"
    names.write_text("cat_02.png\ncat/cat_05.png\n\n  dog_11.png  \ncat_02.png\n")
    task = build(FrozenTask, {"labels": str(names)})
    parts = parts_of(task, data, spec, 0, tmp_path / "cache")
    # One cat was not decoded, so those after it moved up.
    assert parts.final.tolist() == [2, 4, 22] and data.train.labels[parts.final].tolist() == [0, 0, 1]
    pixels = data.train.take(parts.final)[:, 0, 8, 8].tolist()
    assert pixels == [40, 100, 220]
    assert not set(parts.held) & set(parts.final) and set(parts.held) <= set(data.val_ids) and parts.drawn


def test_with_all_labels_the_validation_part_joins_the_last_fit(folder: Path, tmp_path: Path) -> None:
    spec = spec_of(folder)
    data = open_data(spec, tmp_path / "cache")
    parts = parts_of(FrozenTask(), data, spec, 0, tmp_path / "cache")
    assert parts.fit.tolist() == data.probe_ids.tolist() and parts.held.tolist() == data.val_ids.tolist()
    assert sorted([*parts.fit, *parts.held]) == parts.final.tolist() and not parts.drawn


@pytest.mark.parametrize(
    ("content", "word"),
    [
        (b"cat_02.png\nbird_01.png\n", "1 of its 2 names are no training images: bird_01.png"),
        (b"cat/dog_02.png\n", "no training images"),
        (b"\n \n", "holds no names"),
        (b"\xff\xfe\x00", "no text|not a text file"),
    ],
)
def test_names_that_are_not_there_are_refused(
    folder: Path, tmp_path: Path, content: bytes, word: str
) -> None:
    names = tmp_path / "names.txt"
    names.write_bytes(content)
    with pytest.raises(UserError, match=word) as found:
        check_list(names, spec_of(folder))
    assert found.value.field == "labels"


def test_a_name_of_two_images_is_refused(folder: Path, tmp_path: Path) -> None:
    (folder / "train/dog/cat_02.png").write_bytes((folder / "train/cat/cat_02.png").read_bytes())
    names = tmp_path / "names.txt"
    names.write_text("cat_02.png")
    with pytest.raises(UserError, match=r"fit several images: cat_02.png"):
        check_list(names, spec_of(folder))
    names.write_text("dog/cat_02.png")
    assert check_list(names, spec_of(folder)) == 1


def test_images_without_names_and_words_that_are_no_file_are_refused(tmp_path: Path) -> None:
    names = tmp_path / "names.txt"
    names.write_text("a.png")
    with pytest.raises(UserError, match="the images of digits are no files"):
        check_list(names, DataSpec())
    with pytest.raises(UserError, match="Did you mean 'all'"):
        check_list(Path("al"), DataSpec())


def test_a_list_of_other_classes_is_refused(folder: Path, tmp_path: Path) -> None:
    for i in range(8):
        place = folder / "train/eel"
        place.mkdir(exist_ok=True)
        Image.new("L", (16, 16), i).save(place / f"eel_{i}.png")
    spec = spec_of(folder, classes=("cat", "dog"))
    names = tmp_path / "names.txt"
    names.write_text("eel_1.png")
    data = open_data(spec, tmp_path / "cache")
    with pytest.raises(UserError, match="of the classes that are used"):
        parts_of(build(FrozenTask, {"labels": str(names)}), data, spec, 0, tmp_path / "cache")
