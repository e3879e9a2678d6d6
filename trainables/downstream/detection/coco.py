"""COCO's format of instances: one JSON file for a folder of images (https://cocodataset.org/#format-data)."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from trainables.core.errors import first_line
from trainables.downstream.detection.annotations import (
    Annotations,
    Instance,
    Picture,
    Place,
    box_within,
    number,
    positive,
)

_SECTIONS = ("images", "annotations", "categories")


def read_coco(images: Path, annotations: Path, field: str, masks: bool) -> Annotations:
    """The images that the file lists, in its order; categories in the order of their ids.

    With `masks` every object must have a segmentation, which is kept. Raises `UserError` at
    `field` that names file and entry for what cannot be used, and for an image file that is not there.
    """
    place = Place(field, annotations)
    content = _content(place)
    names = _categories(content["categories"], place)
    found = _images(content["images"], place)
    files = _Files(images, field)
    instances: dict[Any, list[Instance]] = {key: [] for key in found}
    for at, note in _mappings(content["annotations"], "annotations", place):
        key, instance = _instance(note, at, names, found, masks)
        instances[key].append(instance)
    pictures = (
        Picture(files.path(name, at), width, height, tuple(instances[key]))
        for key, (at, name, width, height) in found.items()
    )
    return Annotations(tuple(names[key] for key in sorted(names)), tuple(pictures))


def _content(place: Place) -> Mapping[str, list[Any]]:
    """The three sections of the file."""
    try:
        content = json.loads(place.file.read_text(encoding="utf-8"))
    except OSError as error:
        raise place.error(f"cannot be read: {error.strerror}", expected="a JSON file") from None
    except (ValueError, RecursionError) as error:
        problem = "is empty" if not place.file.stat().st_size else f"is no JSON: {first_line(error)}"
        raise place.error(problem, expected="COCO's format of instances") from None
    for section in _SECTIONS:
        if not isinstance(content, dict) or not isinstance(content.get(section), list):
            problem = f"has no list `{section}`"
            raise place.error(problem, expected=f"COCO's format of instances, with {', '.join(_SECTIONS)}")
    if not content["images"]:
        raise place.error("lists no images")
    found: Mapping[str, list[Any]] = content
    return found


def _mappings(section: list[Any], name: str, place: Place) -> Iterator[tuple[Place, Mapping[str, Any]]]:
    for index, entry in enumerate(section):
        at = place.at(f"{name}[{index}]")
        if not isinstance(entry, dict):
            raise at.error("is no mapping", value=entry)
        if "id" in entry:
            at = place.at(f"{name}[{index}] (id {entry['id']!r})")
        yield at, entry


def _key(entry: Mapping[str, Any], name: str, at: Place) -> int:
    """An id, which is a whole number."""
    key = entry.get(name)
    if isinstance(key, bool) or not isinstance(key, int):
        raise at.error(f"has no whole number `{name}`", value=key)
    return key


def _categories(section: list[Any], place: Place) -> dict[int, str]:
    """id -> name."""
    names: dict[int, str] = {}
    for at, entry in _mappings(section, "categories", place):
        key, name = _key(entry, "id", at), entry.get("name")
        if not isinstance(name, str) or not name.strip():
            raise at.error("has no name", value=name, expected="`name`, a text")
        if key in names or name in names.values():
            raise at.error("is there twice", value=name, expected="each category once")
        names[key] = name
    if not names:
        raise place.error("has no categories")
    return names


def _images(section: list[Any], place: Place) -> dict[int, tuple[Place, str, int, int]]:
    """id -> (place, file name, width, height)."""
    found: dict[int, tuple[Place, str, int, int]] = {}
    for at, entry in _mappings(section, "images", place):
        key, name = _key(entry, "id", at), entry.get("file_name")
        if key in found:
            raise at.error("is there twice", expected="each id once")
        if not isinstance(name, str) or not name.strip():
            raise at.error("has no file_name", value=name)
        width, height = positive(entry.get("width")), positive(entry.get("height"))
        if width is None or height is None:
            given = [entry.get("width"), entry.get("height")]
            raise at.error("has no width and height in pixels", value=given)
        found[key] = at, name, width, height
    return found


def _instance(
    note: Mapping[str, Any],
    at: Place,
    names: Mapping[int, str],
    images: Mapping[int, tuple[Place, str, int, int]],
    masks: bool,
) -> tuple[int, Instance]:
    """(id of its image, the object)."""
    key, category = _key(note, "image_id", at), _key(note, "category_id", at)
    if key not in images:
        raise at.error("its image is not in `images`", value=key)
    if category not in names:
        raise at.error("its category is not in `categories`", value=category, choices=map(str, names))
    given = note.get("bbox")
    sides = [number(side) for side in given] if isinstance(given, list) else []
    if len(sides) != 4 or any(side is None for side in sides):
        raise at.error("has no box", value=given, expected="`bbox`, [x, y, width, height] in pixels")
    left, top, width, height = (side or 0.0 for side in sides)
    box = box_within((left, top, left + width, top + height), *images[key][2:], at)
    area = number(note.get("area"))
    crowd = bool(note.get("iscrowd"))
    segmentation = note.get("segmentation") if masks else None
    if masks:
        _check_segmentation(segmentation, at)
    area = width * height if area is None else area
    return key, Instance(names[category], box, area, crowd, False, segmentation)


def _check_segmentation(given: Any, at: Place) -> None:
    """Raise `UserError` where there are neither polygons nor run lengths."""
    polygons = isinstance(given, list) and given and all(isinstance(one, list) for one in given)
    if polygons and all(len(one) >= 6 and len(one) % 2 == 0 for one in given):
        return
    if isinstance(given, dict) and isinstance(given.get("counts"), list | str) and "size" in given:
        return
    expected = "`segmentation`, polygons of at least three points or run lengths; or detector: faster_rcnn"
    raise at.error("has no mask", expected=expected)


class _Files:
    """The files of a folder of images; it is listed once, not asked for each file."""

    def __init__(self, folder: Path, field: str) -> None:
        self.folder = folder
        try:
            self.names = {path.name for path in folder.iterdir()}
        except OSError as error:
            problem = f"cannot be read: {error.strerror}"
            raise Place(field, folder).error(problem, expected="the folder of the images") from None

    def path(self, name: str, at: Place) -> Path:
        """The file of this name. Raises `UserError` where it is missing or outside of the folder."""
        parts = PurePosixPath(name).parts
        if ".." in parts or PurePosixPath(name).is_absolute():
            raise at.error("leads out of the folder of the images", value=name)
        path = self.folder / name
        if not (name in self.names if len(parts) == 1 else path.is_file()):
            problem = f"its image is not in {self.folder}"
            raise at.error(problem, value=name, expected="the folder of these annotations' images")
        return path
