"""Scenes of digits: COCO's own tools read them, masks and boxes are exact, and a seed fixes all of it."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image
from pycocotools import mask as masks
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from trainables.core.errors import UserError
from trainables.data.scenes import coco
from trainables.data.scenes.__main__ import main
from trainables.data.scenes.draw import MOST, Glyph, Scene, draw_scene


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("scenes") / "of digits"
    assert main([str(folder), "--train", "20", "--val", "4", "--side", "64"]) == 0
    return folder


def opened(folder: Path, part: str) -> COCO:
    return COCO(folder / "annotations" / f"instances_{part}.json")


def test_pycocotools_reads_them_and_boxes_are_the_extents_of_masks(folder: Path) -> None:
    for part, count in (("train", 20), ("val", 4)):
        truth = opened(folder, part)
        assert len(truth.imgs) == count
        assert {one["name"]: key for key, one in truth.cats.items()} == {str(d): d + 1 for d in range(10)}
        for image in truth.imgs.values():
            pixels = np.asarray(Image.open(folder / part / image["file_name"]))
            assert pixels.shape == (image["height"], image["width"], 3) == (64, 64, 3)
            notes = truth.imgToAnns[image["id"]]
            assert 1 <= len(notes) <= MOST
            shown = np.zeros((64, 64), int)
            for note in notes:
                mask = truth.annToMask(note)
                rows, columns = np.nonzero(mask)
                top, left = rows.min(), columns.min()
                assert note["bbox"] == [left, top, columns.max() + 1 - left, rows.max() + 1 - top]
                assert note["area"] == mask.sum() == masks.area(truth.annToRLE(note))
                shown += mask
            assert shown.max() == 1  # of a pixel, the digit on top
            assert pixels[shown == 1].mean() > pixels[shown == 0].mean() + 30


def test_who_finds_what_is_annotated_has_an_average_precision_of_one(folder: Path) -> None:
    truth = opened(folder, "val")
    found = truth.loadRes([{**note, "score": 0.9} for note in truth.anns.values()])
    for kind in ("bbox", "segm"):
        judge = COCOeval(truth, found, kind)
        judge.evaluate()
        judge.accumulate()
        judge.summarize()
        assert judge.stats[0] == pytest.approx(1)


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_seed_is_all_there_is_to_them(folder: Path, tmp_path: Path) -> None:
    first = files(folder)
    for name, seed, train in (("again", 0, 20), ("other", 1, 20), ("fewer", 0, 5)):
        coco.write_scenes(tmp_path / name, train=train, val=4, side=64, seed=seed)
    assert files(tmp_path / "again") == first
    other, fewer = files(tmp_path / "other"), files(tmp_path / "fewer")
    assert other.keys() == first.keys() and not set(other.values()) & set(first.values())
    assert all(first[name] == content for name, content in fewer.items() if name.endswith(".png"))
    assert len(set(first.values())) == len(first)  # and no scene twice


def test_no_picture_of_a_digit_is_in_both_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    used: list[set[tuple[bytes, int]]] = []

    def draw(glyphs: list[Glyph], side: int, rng: np.random.Generator) -> Scene:
        used.append({(glyph.pixels.tobytes(), glyph.digit) for glyph in glyphs})
        return draw_scene(glyphs, side, rng)

    monkeypatch.setattr(coco, "draw_scene", draw)
    coco.write_scenes(tmp_path / "new", train=1, val=1, sources=("digits", "mnist_5k"))
    train, val = used
    assert (len(train), len(val)) == (1_348 + 4_000, 449 + 1_000) and not train & val


@given(arrays(bool, st.tuples(st.integers(1, 9), st.integers(1, 9))))
def test_run_lengths_are_those_of_coco(mask: np.ndarray) -> None:
    lengths = {"size": list(mask.shape), "counts": coco.run_lengths(mask)}
    np.testing.assert_array_equal(masks.decode(masks.frPyObjects(lengths, *mask.shape)), mask)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--train", "0"], "--train: no number of scenes (got 0). Expected 1 to"),
        (["--val", "-3"], "--val: no number of scenes (got -3)"),
        (["--side", "8"], "--side: no side of a scene (got 8). Expected pixels, 32 to 1024"),
        (["--seed", "-1"], "--seed: is below 0"),
        (["--sources", "mnist_5"], "--sources: has no digits for scenes (got 'mnist_5'). Did you mean"),
        ([], "DIR: is not empty"),
    ],
)  # fmt: skip
def test_what_cannot_be_drawn_is_refused(
    words: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "photo.png").touch()
    place = tmp_path / "new" if words else tmp_path
    assert main([str(place), *words]) == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "new").exists()


def test_a_file_is_no_folder_for_scenes(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="DIR: cannot be written"):
        coco.write_scenes(tmp_path / "file")
