"""A folder of scenes in COCO's format of instances (https://cocodataset.org/#format-data)."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from trainables.core.errors import UserError
from trainables.core.files import own_folder, replacing
from trainables.data.scenes.draw import SMALLEST_SIDE, Glyph, Instance, Mask, draw_scene
from trainables.data.sources import find_source
from trainables.data.sources.base import Part
from trainables.spec.trial import DataSpec

SOURCES = ("digits", "mnist_5k")  # light digits on a dark ground
_LARGEST_SIDE, _MOST_SCENES = 1024, 100_000


def write_scenes(
    folder: Path,
    *,
    train: int = 400,
    val: int = 100,
    side: int = 128,
    seed: int = 0,
    sources: tuple[str, ...] = ("digits",),
) -> dict[str, int]:
    """Write `train` and `val` scenes of `side` x `side` pixels; the number of digits in each part.

    Scenes to train on show the training images of `sources`, those for validation the test images, so no
    picture of a digit is in both. Scene i of a part depends on seed, part, side and sources alone. The same
    arguments give the same pixels and annotations everywhere, and the same bytes with one version of Pillow.
    Annotations come last: a part without them is not complete. Raises `UserError`, with the field as on the
    command line, for a wrong argument, a folder that holds something, and a source that is not installed.
    """
    _check(folder, {"--train": train, "--val": val}, side, seed, sources)
    opened = [find_source(name).open(DataSpec(name=name)) for name in sources]
    made = {}
    for number, (name, count) in enumerate((("train", train), ("val", val))):
        parts = [one.train if name == "train" else one.test for one in opened]
        glyphs = [glyph for part in parts if part is not None for glyph in _glyphs(part)]
        (folder / name).mkdir()
        images: list[dict[str, Any]] = []
        notes: list[dict[str, Any]] = []
        for i in range(1, count + 1):
            scene = draw_scene(glyphs, side, np.random.default_rng([seed, number, i]))
            images.append({"id": i, "file_name": f"{i:012}.png", "width": side, "height": side})
            Image.fromarray(scene.pixels).save(folder / name / f"{i:012}.png")
            for instance in scene.instances:
                notes.append({"id": len(notes) + 1, "image_id": i, **annotation(instance)})
        content = {
            "info": {"description": "raykd's scenes of digits", "seed": seed, "sources": list(sources)},
            "licenses": [],
            "images": images,
            "annotations": notes,
            "categories": [{"id": d + 1, "name": str(d), "supercategory": "digit"} for d in range(10)],
        }
        with replacing(folder / "annotations" / f"instances_{name}.json") as temporary:
            temporary.write_text(json.dumps(content))
        made[name] = len(notes)
    return made


def annotation(instance: Instance) -> dict[str, Any]:
    """Category (the digit + 1: 0 is the background of detectors), run lengths, area and box of an instance.

    The box is [x, y, width, height] in pixels and ends where the mask does.
    """
    rows, columns = (np.flatnonzero(instance.mask.any(axis)).tolist() for axis in (1, 0))
    return {
        "category_id": instance.digit + 1,
        "segmentation": {"size": list(instance.mask.shape), "counts": run_lengths(instance.mask)},
        "area": int(instance.mask.sum()),
        "bbox": [columns[0], rows[0], columns[-1] - columns[0] + 1, rows[-1] - rows[0] + 1],
        "iscrowd": 0,
    }


def run_lengths(mask: Mask) -> list[int]:
    """COCO's uncompressed run lengths of a mask (H, W): column by column, first of zeros, then of ones."""
    flat = mask.T.ravel()
    ends = np.flatnonzero(np.diff(flat)) + 1
    lengths: list[int] = np.diff([0, *ends, len(flat)]).tolist()
    return [0, *lengths] if flat[0] else lengths


def _glyphs(part: Part) -> Iterator[Glyph]:
    for sample in part.samples():
        assert isinstance(sample.picture, Image.Image)
        yield Glyph(np.asarray(sample.picture), sample.label)


def _check(folder: Path, counts: dict[str, int], side: int, seed: int, sources: tuple[str, ...]) -> None:
    """Raise `UserError` for what cannot be drawn; else the folder is there and empty."""
    for name, count in counts.items():
        if not 1 <= count <= _MOST_SCENES:
            raise UserError(name, "no number of scenes", value=count, expected=f"1 to {_MOST_SCENES}")
    if not SMALLEST_SIDE <= side <= _LARGEST_SIDE:
        expected = f"pixels, {SMALLEST_SIDE} to {_LARGEST_SIDE}"
        raise UserError("--side", "no side of a scene", value=side, expected=expected)
    if seed < 0:
        raise UserError("--seed", "is below 0", value=seed, expected="a whole number from 0")
    if not sources:
        raise UserError("--sources", "names none", expected=" or ".join(SOURCES))
    for name in sources:
        if name not in SOURCES:
            raise UserError("--sources", "has no digits for scenes", value=name, choices=SOURCES)
        find_source(name).counts(DataSpec(name=name))  # its package is there
    try:
        own_folder(folder)
        if any(folder.iterdir()):
            problem = "is not empty: its images and these would be mixed"
            raise UserError("DIR", problem, value=str(folder), expected="a new folder")
    except OSError as error:
        problem = f"cannot be written: {error.strerror}"
        raise UserError("DIR", problem, value=str(folder), expected="a new folder") from None
