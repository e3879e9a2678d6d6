"""Pascal VOC's format: an XML file for each image, and lists of images (host.robots.ox.ac.uk/pascal/VOC)."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

from trainables.core.errors import first_line
from trainables.downstream.detection.annotations import (
    Annotations,
    Instance,
    Picture,
    Place,
    box_within,
    in_order,
    number,
    positive,
)


def read_voc(root: Path, list_file: Path, field: str) -> Annotations:
    """The images of the list, in its order; the categories that they have, by name.

    Boxes are counted from 0, the file's from 1. Raises `UserError` at `field` that names file and entry for
    what cannot be used, and for an image file that is not there.
    """
    names = _listed(list_file, field)
    folder = root / "JPEGImages"
    try:
        files = {path.stem: path for path in sorted(folder.iterdir(), reverse=True)}
    except OSError as error:
        problem = f"cannot be read: {error.strerror}"
        raise Place(field, folder).error(problem, expected="the folder of the images") from None
    pictures = []
    for number_, name in enumerate(names, 1):
        if name not in files:
            at = Place(field, list_file, f"image {number_}")
            raise at.error(f"is not in {folder}", value=name)
        pictures.append(_picture(files[name], Place(field, root / "Annotations" / f"{name}.xml")))
    categories = {instance.category for picture in pictures for instance in picture.instances}
    return Annotations(tuple(sorted(categories)), tuple(pictures))


def _listed(path: Path, field: str) -> tuple[str, ...]:
    """Names of images. The lists of one category have a number behind each name, which is left out."""
    place = Place(field, path)
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError) as error:
        problem = f"cannot be read: {getattr(error, 'strerror', None) or first_line(error)}"
        try:
            there = sorted(one.stem for one in path.parent.glob("*.txt"))
        except OSError:
            there = []
        few = [name for name in there if "_" not in name]  # without the lists of one category
        raise place.error(problem, expected="a list of images", choices=few) from None
    names = in_order(line.split()[0] for line in lines if line.strip())
    if not names:
        raise place.error("is empty", expected="a name of an image on each line")
    return names


def _picture(file: Path, place: Place) -> Picture:
    try:
        tree = ElementTree.fromstring(place.file.read_bytes())
    except OSError as error:
        raise place.error(f"cannot be read: {error.strerror}") from None
    except (ElementTree.ParseError, ValueError, LookupError) as error:
        empty = not place.file.stat().st_size
        raise place.error("is empty" if empty else f"is no XML: {first_line(error)}") from None
    width, height = (positive(_number(tree.findtext(f"size/{side}"))) for side in ("width", "height"))
    if width is None or height is None:
        raise place.error("has no size with width and height in pixels")
    objects = tree.findall("object")
    instances = (
        _instance(one, width, height, place.at(f"object {index}")) for index, one in enumerate(objects, 1)
    )
    return Picture(file, width, height, tuple(instances))


def _instance(one: ElementTree.Element, width: int, height: int, at: Place) -> Instance:
    name = (one.findtext("name") or "").strip()
    if not name:
        raise at.error("has no name")
    corners = [_number(one.findtext(f"bndbox/{side}")) for side in ("xmin", "ymin", "xmax", "ymax")]
    if any(side is None for side in corners):
        expected = "bndbox with xmin, ymin, xmax and ymax in pixels"
        raise at.error(f"{name} has no box", expected=expected)
    left, top, right, bottom = (side or 0.0 for side in corners)
    box = box_within((left - 1, top - 1, right, bottom), width, height, at)
    area = (box[2] - box[0]) * (box[3] - box[1])
    return Instance(name, box, area, difficult=(one.findtext("difficult") or "").strip() == "1")


def _number(text: str | None) -> float | None:
    try:
        return number(float(text or ""))
    except ValueError:
        return None
