"""Average precision of boxes and masks by pycocotools (Lin et al. 2014): the mean over IoU .5 to .95."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from trainables.core.heartbeat import heartbeat
from trainables.core.precision import whole_float32
from trainables.core.workers import from_each, from_first, on_each, rank, sent, world_size
from trainables.downstream.detection.annotations import Picture
from trainables.downstream.detection.batches import Example, ahead, read_pixels
from trainables.downstream.detection.masks import encoded, run_lengths

_INK = 0.5  # from this probability on a pixel belongs to a mask


class Found(NamedTuple):
    """What a detector found in one image."""

    boxes: np.ndarray  # (N, 4): left, top, right, bottom in pixels
    scores: np.ndarray  # (N,)
    labels: np.ndarray  # (N,), from 1
    masks: list[dict[str, Any]] | None = None  # run lengths


def find(detector: nn.Module, pictures: Sequence[Picture], device: torch.device) -> list[Found]:
    """What the detector finds in each of `pictures`, on every worker; each works on a share of them.

    Raises `UserError`, on every worker, for an image that cannot be decoded.
    """
    own = on_each(lambda: _find_share(detector, pictures, device))
    together: dict[int, Found] = {}
    for share in from_each(own):
        together |= share
    return [together[at] for at in range(len(pictures))]


def _find_share(detector: nn.Module, pictures: Sequence[Picture], device: torch.device) -> dict[int, Found]:
    """What this worker finds in its share, by the number of the image. It waits for no other worker."""
    mine = range(rank() if world_size() > 1 else 0, len(pictures), world_size())
    own: dict[int, Found] = {}
    detector.eval()
    with whole_float32(), torch.no_grad():
        shown = ahead(lambda at: Example(read_pixels(pictures[at], "val"), {}), ([at] for at in mine))
        for at, (one,) in zip(mine, shown, strict=True):
            heartbeat(f"detection, image {at + 1}/{len(pictures)}")
            image = sent(one.pixels, device).float() / 255
            own[at] = _found(detector([image])[0])
    return own


def _found(said: dict[str, Tensor]) -> Found:
    boxes, scores, labels = (said[name].cpu().numpy() for name in ("boxes", "scores", "labels"))
    masks = None
    if "masks" in said:
        planes = (said["masks"][:, 0] >= _INK).to(torch.uint8).cpu().numpy()
        masks = [encoded(plane) for plane in planes]
    return Found(boxes, scores, labels, masks)


def average_precision(
    pictures: Sequence[Picture], categories: Sequence[str], found: Sequence[Found]
) -> dict[str, float]:
    """Percent: box_map, box_ap50, box_ap75, and with masks mask_map, mask_ap50, mask_ap75.

    COCO's definition with 101 points of recall. What is difficult in VOC is neither missed nor wrong.
    """
    kinds = {"box": "bbox"}
    if found and found[0].masks is not None:
        kinds["mask"] = "segm"
    scores: dict[str, float] = {}
    for name, kind in kinds.items():
        three = _evaluated(pictures, categories, found, kind)
        scores |= {
            f"{name}_{what}": score for what, score in zip(("map", "ap50", "ap75"), three, strict=True)
        }
    return scores


def _evaluated(
    pictures: Sequence[Picture], categories: Sequence[str], found: Sequence[Found], kind: str
) -> tuple[float, float, float]:
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    class Judge(COCOeval):  # type: ignore[misc]  # it has no types
        """Leaves out what is marked `difficult`, as VOC's own score does."""

        def _prepare(self) -> None:
            super()._prepare()
            for notes in self._gts.values():
                for note in notes:
                    note["ignore"] = note["ignore"] or note["difficult"]

    truth, said = COCO(), COCO()
    images = [{"id": at, "width": one.width, "height": one.height} for at, one in enumerate(pictures, 1)]
    known = [{"id": at, "name": name} for at, name in enumerate(categories, 1)]
    masks = kind == "segm"
    truth.dataset = {
        "images": images,
        "categories": known,
        "annotations": _truth(pictures, categories, masks),
    }
    said.dataset = {"images": images, "categories": known, "annotations": _said(found, masks)}
    with contextlib.redirect_stdout(io.StringIO()):  # it prints
        truth.createIndex()
        said.createIndex()
        judge = Judge(truth, said, kind)
        judge.evaluate()
        judge.accumulate()
        judge.summarize()
    # Without a single object that counts it says -1.
    whole, half, three_quarters = (max(0.0, 100 * float(one)) for one in judge.stats[:3])
    return whole, half, three_quarters


def _truth(pictures: Sequence[Picture], categories: Sequence[str], masks: bool) -> list[dict[str, Any]]:
    notes: list[dict[str, Any]] = []
    for at, picture in enumerate(pictures, 1):
        for one in picture.instances:
            note = _note(len(notes) + 1, at, categories.index(one.category) + 1, one.box)
            note |= {"area": one.area, "iscrowd": int(one.crowd), "difficult": int(one.difficult)}
            if masks and one.segmentation is not None:
                note["segmentation"] = run_lengths(one.segmentation, picture.width, picture.height)
            notes.append(note)
    return notes


def _said(found: Sequence[Found], masks: bool) -> list[dict[str, Any]]:
    notes: list[dict[str, Any]] = []
    for at, one in enumerate(found, 1):
        for index, (box, score, label) in enumerate(zip(one.boxes, one.scores, one.labels, strict=True)):
            note = _note(len(notes) + 1, at, int(label), box.tolist())
            if masks:
                assert one.masks is not None
                note["segmentation"] = one.masks[index]
                note["area"] = float(_area(one.masks[index]))
            notes.append({**note, "score": float(score)})
    return notes


def _note(key: int, image: int, category: int, box: Sequence[float]) -> dict[str, Any]:
    left, top, right, bottom = box
    sides = [left, top, right - left, bottom - top]
    area = sides[2] * sides[3]
    return {"id": key, "image_id": image, "category_id": category, "bbox": sides, "area": area, "iscrowd": 0}


def _area(lengths: dict[str, Any]) -> int:
    from pycocotools import mask as tools

    return int(tools.area(lengths))


def score(pictures: Sequence[Picture], categories: Sequence[str], found: Sequence[Found]) -> dict[str, float]:
    """`average_precision`, computed by the first worker for all."""
    return from_first(lambda: average_precision(pictures, categories, found))
