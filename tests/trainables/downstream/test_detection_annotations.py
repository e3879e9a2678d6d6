"""Annotations for detectors: COCO's and VOC's say the same, and what is wrong in them is named."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from annotated import coco, task, trial, write_coco, write_voc
from PIL import Image

from trainables.core.errors import UserError
from trainables.downstream.detection.annotations import Instance, Picture
from trainables.downstream.detection.batches import Draws, ahead, example
from trainables.downstream.detection.check import check_detection, detection_cost
from trainables.downstream.detection.masks import decoded
from trainables.downstream.detection.reading import read_data


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_coco(tmp_path_factory.mktemp("coco") / "scenes")


def test_both_formats_give_the_same_images_and_targets(scenes: Path, tmp_path: Path) -> None:
    voc = {part: write_voc(scenes, part, tmp_path / part) for part in ("train", "val")}
    ours, theirs = read_data(task(scenes)), read_data(task(scenes, **voc))
    assert ours.categories == theirs.categories == tuple("0123456789")
    assert len(ours.train) == 16 and len(ours.val) == 8
    for one, other in zip((*ours.train, *ours.val), (*theirs.train, *theirs.val), strict=True):
        assert one.file.stem == other.file.stem
        first, second = (example(p, ours.categories, False, False, "train") for p in (one, other))
        assert torch.equal(first.pixels, second.pixels)
        assert torch.equal(first.target["boxes"], second.target["boxes"])
        assert torch.equal(first.target["labels"], second.target["labels"]) and len(first.target["labels"])


def test_several_parts_are_one_with_the_categories_of_all(scenes: Path, tmp_path: Path) -> None:
    voc = write_voc(scenes, "train", tmp_path / "voc")
    found = read_data(task(scenes, train=[voc, {**voc, "image_set": "train"}]))
    assert len(found.train) == 32 and found.categories == tuple("0123456789")


def test_a_mirrored_example_is_the_mirror_image(scenes: Path) -> None:
    picture = read_data(task(scenes, detector="mask_rcnn")).train[0]
    plain, mirrored = (example(picture, tuple("0123456789"), way, True, "train") for way in (False, True))
    assert torch.equal(mirrored.pixels, plain.pixels.flip(2))
    assert torch.equal(mirrored.target["masks"], plain.target["masks"].flip(2))
    for one in (plain, mirrored):  # boxes are where masks are
        for box, mask in zip(one.target["boxes"], one.target["masks"], strict=True):
            rows, columns = np.nonzero(mask.numpy())
            assert box.tolist() == [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]


def test_masks_of_polygons_and_run_lengths_are_the_same_pixels() -> None:
    square = np.zeros((6, 8), np.uint8)
    square[1:4, 2:7] = 1
    polygon = [[2, 1, 7, 1, 7, 4, 2, 4]]
    flat = square.T.ravel()
    counts = [int(one) for one in np.diff([0, *(np.flatnonzero(np.diff(flat)) + 1), flat.size])]
    for said in (polygon, {"size": [6, 8], "counts": counts}):
        assert np.array_equal(decoded(said, 8, 6), square)
    with pytest.raises(ValueError, match="run lengths"):
        decoded({"size": [6, 8], "counts": [3, 3]}, 8, 6)
    with pytest.raises(ValueError, match="not those of the image"):
        decoded({"size": [6, 8], "counts": "0"}, 4, 6)


def test_an_epoch_shows_each_image_once_and_a_step_depends_on_seed_and_number_alone() -> None:
    draws = Draws(10, 4, seed=3, flip=True)
    seen = [one for step in range(5) for one in draws.of_step(step)]
    assert (
        sorted(one.picture for one in seen[:10]) == sorted(one.picture for one in seen[10:]) == [*range(10)]
    )
    assert [one.picture for one in seen[:10]] != [one.picture for one in seen[10:]]
    assert {one.mirrored for one in seen} == {True, False}
    assert Draws(10, 4, seed=3, flip=True).of_step(3) == draws.of_step(3) == seen[12:16]
    assert Draws(10, 4, seed=4, flip=True).of_step(3) != draws.of_step(3)
    assert not any(one.mirrored for one in Draws(10, 4, seed=3, flip=False).of_step(0))


def test_batches_come_in_order_and_an_error_of_a_thread_arrives(scenes: Path) -> None:
    picture = read_data(task(scenes)).train[0]

    def make(number: int) -> Any:
        if number == 7:
            raise UserError("train", "number 7")
        return example(picture._replace(instances=picture.instances[:1]), "0123456789", False, False, "train")

    assert [len(batch) for batch in ahead(make, iter([[1, 2], [3], [4, 5, 6]]))] == [2, 1, 3]
    with pytest.raises(UserError, match="number 7"):
        list(ahead(make, iter([[1], [7], [2]])))


def test_a_box_beyond_its_image_by_rounding_is_cut_and_an_empty_one_not_trained_on(scenes: Path) -> None:
    folder = altered(scenes, lambda content: content["annotations"][0].update(bbox=[-0.4, 0, 64.8, 12]))
    assert read_data(folder).train[0].instances[0].box == (0.0, 0.0, 64.0, 12.0)
    flat = Instance("1", (3, 4, 3, 9), 0.0)
    crowd = Instance("1", (3, 4, 8, 9), 25.0, crowd=True)
    hard = Instance("1", (3, 4, 8, 9), 25.0, difficult=True)
    assert Picture(Path("a"), 10, 10, (flat, crowd, hard)).trained == [hard]


def altered(scenes: Path, change: Callable[[Any], object], **fields: Any) -> Any:
    """The task on scenes whose training annotations were changed."""
    content = json.loads((scenes / "annotations/instances_train.json").read_text())
    change(content)
    file = scenes / "annotations" / "altered.json"
    file.write_text(json.dumps(content))
    return task(scenes, train={**coco(scenes, "train"), "annotations": str(file)}, **fields)


@pytest.mark.parametrize(
    ("change", "entry", "problem"),
    [
        (lambda c: c["categories"][3].pop("name"), "categories[3] (id 4)", "has no name"),
        (lambda c: c["categories"][3].update(id="x"), "categories[3] (id 'x')", "no whole number `id`"),
        (lambda c: c["categories"].append(c["categories"][0]), "categories[10] (id 1)", "is there twice"),
        (lambda c: c["images"][2].update(file_name="gone.png"), "images[2] (id 3)", "image is not in"),
        (lambda c: c["images"][2].update(file_name="../val/1.png"), "images[2] (id 3)", "leads out"),
        (lambda c: c["images"][2].update(width=0), "images[2] (id 3)", "no width and height"),
        (lambda c: c["images"][2].update(id=1), "images[2] (id 1)", "is there twice"),
        (lambda c: c["annotations"][5].update(bbox=[60, 5, 10, 10]), "annotations[5] (id 6)",
         "leaves the image of 64 x 64 pixels by 6"),
        (lambda c: c["annotations"][5].update(bbox=[6, 5, -3, 10]), "annotations[5] (id 6)", "ends before"),
        (lambda c: c["annotations"][5].update(bbox=[6, 5, 3]), "annotations[5] (id 6)", "has no box"),
        (lambda c: c["annotations"][5].update(bbox=[6, 5, 3, float("nan")]), "annotations[5] (id 6)",
         "has no box"),
        (lambda c: c["annotations"][5].update(category_id=77), "annotations[5] (id 6)", "not in `cat"),
        (lambda c: c["annotations"][5].update(image_id=77), "annotations[5] (id 6)", "not in `images`"),
        (lambda c: c["annotations"].insert(5, 3), "annotations[5]", "is no mapping"),
        (lambda c: c.pop("categories"), "", "has no list `categories`"),
        (lambda c: c["images"].clear(), "", "lists no images"),
    ],
)  # fmt: skip
def test_mistakes_in_coco_s_format(
    scenes: Path, change: Callable[[Any], object], entry: str, problem: str
) -> None:
    where = re.escape(f"altered.json, {entry}" if entry else "altered.json: ")
    with pytest.raises(UserError, match=f"{where}.*{re.escape(problem)}") as caught:
        check_detection(altered(scenes, change), trial())
    assert caught.value.field == "train"


def test_masks_are_asked_for_where_they_are_needed(scenes: Path) -> None:
    def without(content: Any) -> None:
        content["annotations"][4].pop("segmentation")

    assert read_data(altered(scenes, without)).train
    with pytest.raises(UserError, match=r"annotations\[4\] \(id 5\): has no mask.*or detector: faster_rcnn"):
        read_data(altered(scenes, without, detector="mask_rcnn"))


@pytest.mark.parametrize(("content", "problem"), [("", "is empty"), ("{", "is no JSON"), ("[]", "no list")])
def test_files_that_are_no_annotations(scenes: Path, tmp_path: Path, content: str, problem: str) -> None:
    file = tmp_path / "some.json"
    file.write_text(content)
    with pytest.raises(UserError, match=f"train: .*some.json: .*{problem}"):
        read_data(task(scenes, train={**coco(scenes, "train"), "annotations": str(file)}))
    file.unlink()
    with pytest.raises(UserError, match=r"val.1: .*some.json: cannot be read: No such file"):
        other = {**coco(scenes, "val"), "annotations": str(file)}
        read_data(task(scenes, val=[coco(scenes, "val"), other]))
    with pytest.raises(UserError, match=r"train: .*none: cannot be read.*the folder of the images"):
        read_data(task(scenes, train={**coco(scenes, "train"), "images": str(tmp_path / "none")}))


@pytest.mark.parametrize(
    ("file", "old", "new", "problem"),
    [
        ("Annotations/000000000002.xml", "<name>", "<name/><nome>", "no XML"),
        ("Annotations/000000000002.xml", r"<name>\d</name>", "", "000000000002.xml, object 1: has no name"),
        ("Annotations/000000000002.xml", r"<xmax>\d+", "<xmax>99", "object 1: its box leaves the image"),
        ("Annotations/000000000002.xml", r"<xmax>\d+</xmax>", "", "object 1: . has no box"),
        ("Annotations/000000000002.xml", "width", "depth", "no size with width"),
        ("Annotations/000000000002.xml", "(?s).*", "", "000000000002.xml: is empty"),
        ("ImageSets/Main/train.txt", "000000000002", "000000000077", "image 2: is not in .*JPEGImages"),
        ("ImageSets/Main/train.txt", "(?s).*", "", "train.txt: is empty"),
    ],
)
def test_mistakes_in_voc_s_format(
    scenes: Path, tmp_path: Path, file: str, old: str, new: str, problem: str
) -> None:
    voc = write_voc(scenes, "train", tmp_path / "voc")
    path = tmp_path / "voc" / file
    path.write_text(re.sub(old, new, path.read_text()))
    with pytest.raises(UserError, match=f"train: .*{problem}"):
        read_data(task(scenes, train=voc))


def test_mistakes_in_what_is_named(scenes: Path, tmp_path: Path) -> None:
    voc = write_voc(scenes, "train", tmp_path / "voc")
    with pytest.raises(UserError, match=r"trian.txt: cannot be read.*Known: train\."):
        read_data(task(scenes, train={**voc, "image_set": "trian"}))
    with pytest.raises(UserError, match=r"train: has boxes and no masks.*COCO's format, or faster_rcnn"):
        read_data(task(scenes, train=voc, detector="mask_rcnn"))
    with pytest.raises(UserError, match=r"train: has no boxes"):
        read_data(altered(scenes, lambda content: content["annotations"].clear()))
    with pytest.raises(
        UserError, match=r"val: has a category that the training part does not have.*Known: x0"
    ):
        read_data(altered(scenes, lambda c: [one.update(name=f"x{one['name']}") for one in c["categories"]]))


def test_files_that_are_no_images_or_others(scenes: Path, tmp_path: Path) -> None:
    picture = read_data(task(scenes)).train[0]
    file = tmp_path / "a.png"
    file.write_bytes(picture.file.read_bytes()[:300])
    with pytest.raises(UserError, match=r"train: .*a.png: cannot be decoded"):
        example(picture._replace(file=file), "0123456789", False, False, "train")
    Image.new("RGB", (32, 64)).save(file)
    with pytest.raises(UserError, match=r"train: .*a.png: has 32 x 64 pixels.*64 x 64"):
        example(picture._replace(file=file), "0123456789", False, False, "train")


def test_what_a_task_costs(scenes: Path) -> None:
    assert detection_cost(task(scenes, iterations=7), trial()) == (8, 28)
    assert detection_cost(task(scenes, iterations=None, epochs=3), trial()) == (8, 48)
