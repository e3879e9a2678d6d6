"""Scenes of digits as a task `detection` takes them, in COCO's format and in Pascal VOC's."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from PIL import Image

from trainables.data.scenes.coco import write_scenes
from trainables.spec.parse import build
from trainables.spec.suite_detection import DetectionTask
from trainables.spec.trial import StudentSpec, TrialSpec

# So small that a training takes a second.
SMALL = {
    "min_size": 64, "max_size": 64, "iterations": 2, "batch": 4, "lr": 0.01, "warmup": 0, "flip": False,
    "fpn_channels": 16, "head_width": 16, "proposals": 20, "region_samples": 16,
}  # fmt: skip


def write_coco(folder: Path) -> Path:
    """16 scenes to train on and 8 to score on, 64 x 64 pixels; returns `folder`."""
    write_scenes(folder, train=16, val=8, side=64)
    return folder


def coco(folder: Path, part: str) -> dict[str, str]:
    """One part of the scenes as a task names it."""
    return {"images": str(folder / part), "annotations": str(folder / f"annotations/instances_{part}.json")}


def task(folder: Path, **fields: Any) -> DetectionTask:
    """A small task on the scenes in `folder`."""
    parts = {"train": coco(folder, "train"), "val": coco(folder, "val")}
    return build(DetectionTask, {"task": "detection", **parts, **SMALL, **fields})


def trial(arch: str = "test_resnet", **options: Any) -> TrialSpec:
    """Of a student that learned something somewhere."""
    student = StudentSpec(arch=arch, options=options)
    return TrialSpec(method="supervised", config={}, student=student, epochs=1)


def write_voc(scenes: Path, part: str, root: Path) -> dict[str, str]:
    """The same part in Pascal VOC's layout; returns it as a task names it."""
    content = json.loads((scenes / f"annotations/instances_{part}.json").read_text())
    names = {one["id"]: one["name"] for one in content["categories"]}
    for folder in ("JPEGImages", "Annotations", "ImageSets/Main"):
        (root / folder).mkdir(parents=True)
    listed = []
    for image in content["images"]:
        name = Path(image["file_name"]).stem
        listed.append(name)
        Image.open(scenes / part / image["file_name"]).save(root / "JPEGImages" / f"{name}.png")
        objects = [
            _object(names[note["category_id"]], note["bbox"])
            for note in content["annotations"]
            if note["image_id"] == image["id"]
        ]
        size = f"<size><width>{image['width']}</width><height>{image['height']}</height></size>"
        xml = f"<annotation>{size}{''.join(objects)}</annotation>"
        (root / "Annotations" / f"{name}.xml").write_text(xml)
    (root / f"ImageSets/Main/{part}.txt").write_text("\n".join(listed) + "\n")
    return {"root": str(root), "image_set": part}


def _object(name: str, box: list[int]) -> str:
    """VOC counts pixels from 1, and the last one belongs to the box."""
    left, top, width, height = box
    corners = {"xmin": left + 1, "ymin": top + 1, "xmax": left + width, "ymax": top + height}
    sides = "".join(f"<{side}>{value}</{side}>" for side, value in corners.items())
    return f"<object><name>{name}</name><bndbox>{sides}</bndbox><difficult>0</difficult></object>"
