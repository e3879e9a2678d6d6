"""Average precision: by hand, and equal to pycocotools on the files."""

from __future__ import annotations

import contextlib
import io
from pathlib import Path

import numpy as np
import pytest
from annotated import coco, task, write_coco
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from trainables.downstream.detection.annotations import Instance, Picture
from trainables.downstream.detection.masks import decoded, encoded
from trainables.downstream.detection.reading import read_data
from trainables.downstream.detection.scoring import Found, average_precision

CATEGORIES = tuple("0123456789")
_BOX = (10.0, 10.0, 30.0, 30.0)


def found(*said: tuple[tuple[float, ...], float, int]) -> Found:
    boxes, scores, labels = zip(*said, strict=True) if said else ((), (), ())
    return Found(np.array(boxes).reshape(-1, 4), np.array(scores), np.array(labels, np.int64))


def picture(*instances: Instance) -> Picture:
    return Picture(Path("none"), 64, 64, instances)


def test_by_hand() -> None:
    """Two objects of one category: one is found exactly, before a wrong box; the other is not found.

    Recall .5 with precision 1 and no more: the precision at 51 of the 101 points of recall is 1, else 0.
    """
    shown = [picture(Instance("3", _BOX, 400), Instance("3", (40, 40, 60, 60), 400))]
    said = [found((_BOX, 0.9, 4), ((0, 40, 20, 60), 0.8, 4))]
    scores = average_precision(shown, CATEGORIES, said)
    assert scores == pytest.approx({f"box_{name}": 100 * 51 / 101 for name in ("map", "ap50", "ap75")})
    # The wrong one first: precision is 1/2 where it was 1.
    said = [found((_BOX, 0.7, 4), ((0, 40, 20, 60), 0.8, 4))]
    assert average_precision(shown, CATEGORIES, said)["box_map"] == pytest.approx(50 * 51 / 101)


def test_overlap_of_two_thirds_counts_at_half_and_not_at_three_quarters() -> None:
    shown = [picture(Instance("3", _BOX, 400))]
    scores = average_precision(shown, CATEGORIES, [found(((10, 10, 30, 24), 0.9, 4))])  # 280 of 400 pixels
    assert scores == pytest.approx({"box_map": 50, "box_ap50": 100, "box_ap75": 0})  # .5 .55 .6 .65 .7


def test_the_category_counts_and_nothing_found_is_zero() -> None:
    shown = [picture(Instance("3", _BOX, 400)), picture()]
    assert average_precision(shown, CATEGORIES, [found((_BOX, 0.9, 3)), found()])["box_map"] == 0
    assert average_precision(shown, CATEGORIES, [found(), found()])["box_map"] == 0
    assert average_precision(shown, CATEGORIES, [found((_BOX, 0.9, 4)), found()])["box_map"] == pytest.approx(
        100
    )


@pytest.mark.parametrize("kind", ["difficult", "crowd"])
def test_what_is_difficult_or_a_crowd_is_neither_missed_nor_wrong(kind: str) -> None:
    left_out = Instance("3", (40, 40, 60, 60), 400)._replace(**{kind: True})
    shown = [picture(Instance("3", _BOX, 400), left_out)]
    one, other = (_BOX, 0.9, 4), ((40, 40, 60, 60), 0.95, 4)
    for said in (found(one), found(one, other)):
        assert average_precision(shown, CATEGORIES, [said])["box_map"] == pytest.approx(100)
    counted = [picture(Instance("3", _BOX, 400), left_out._replace(**{kind: False}))]
    assert average_precision(counted, CATEGORIES, [found(one)])["box_map"] < 60


def test_as_pycocotools_says_of_the_files(tmp_path: Path) -> None:
    """Boxes and masks moved by chance, some left out, some of a wrong category."""
    scenes = write_coco(tmp_path / "scenes")
    shown = read_data(task(scenes, detector="mask_rcnn")).val
    rng = np.random.default_rng(0)
    said = [_moved(one, rng) for one in shown]
    ours = average_precision(shown, CATEGORIES, said)
    truth = COCO(coco(scenes, "val")["annotations"])
    for kind, name in (("bbox", "box"), ("segm", "mask")):
        notes = [
            {
                "image_id": at,
                "category_id": int(label),
                "score": float(score),
                **(
                    {"bbox": [*box[:2].tolist(), *(box[2:] - box[:2]).tolist()]}
                    if kind == "bbox"
                    else {"segmentation": mask}
                ),
            }
            for at, one in enumerate(said, 1)
            for box, score, label, mask in zip(
                one.boxes, one.scores, one.labels, one.masks or [], strict=True
            )
        ]
        with contextlib.redirect_stdout(io.StringIO()):
            judge = COCOeval(truth, truth.loadRes(notes), kind)
            judge.evaluate()
            judge.accumulate()
            judge.summarize()
        theirs = [100 * float(one) for one in judge.stats[:3]]
        assert [ours[f"{name}_{what}"] for what in ("map", "ap50", "ap75")] == theirs
        assert 5 < ours[f"{name}_map"] < 95


def _moved(shown: Picture, rng: np.random.Generator) -> Found:
    boxes, scores, labels, masks = [], [], [], []
    for one in shown.instances:
        if rng.random() < 0.2:
            continue
        by = int(rng.integers(0, 5))
        boxes.append([side + by for side in one.box])
        scores.append(rng.random())
        labels.append(int(one.category) + 1 if rng.random() < 0.8 else 1)
        masks.append(encoded(np.roll(decoded(one.segmentation, 64, 64), by, (0, 1))))
    return Found(np.array(boxes).reshape(-1, 4), np.array(scores), np.array(labels, np.int64), masks)
