"""The summary of a data set before it is used: which files belong to which part, and which are left out."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from trainables.data.data_sets import DataFacts, check_data, known_undecodable
from trainables.data.sources import find_source
from trainables.data.sources.base import Taken
from trainables.data.store_kinds import Jpegs
from trainables.data.store_writer import Undecodable
from trainables.spec.trial import DataSpec

_NAMES = 3  # classes that are named, besides the last one
_LONGEST = 24  # characters of a name


def tell_data(spec: DataSpec, cache: Path) -> dict[str, Any]:
    """The facts of the data set as plain data, and as `lines` of text. Raises `UserError` as `check_data`."""
    facts, where = check_data(spec), find_source(spec.name).where(spec)
    bad = known_undecodable(spec, cache)
    return {
        "name": spec.name,
        "path": str(where) if where is not None else None,
        "train_images": facts.train_images,
        "validation_images": facts.validation_images,
        "test_images": facts.test_images,
        "classes": facts.classes,
        "class_names": list(facts.class_names),
        "taken": [part._asdict() for part in facts.taken],
        "undecodable": bad.count if bad is not None else None,
        "remarks": list(facts.remarks),
        "lines": [
            f"data: {spec.name}" + (f" in {where}" if where is not None else ""),
            *(f"  {line}" for line in _lines(facts)),
            *(f"  {line}" for line in _kept(spec, facts)),
            *([f"  {line}"] if (line := _undecodable(bad, where)) else []),
        ],
    }


def _lines(facts: DataFacts) -> list[str]:
    labelled = facts.probe_images + facts.validation_images
    free = facts.train_images - facts.probe_images
    lines = []
    if labelled:
        text = f"train: {_images(labelled)} of {facts.classes} classes{_names(facts.class_names)}"
        held = f"{facts.validation_images} of them held out for validation"
        lines.append(f"{text}{_places(facts, 'train')}; {held}")
    if free:
        where = _places(facts, "unlabelled") or ("" if labelled else _places(facts, "train"))
        lines.append(f"{'and' if labelled else 'train:'} {_images(free)} without labels{where}")
    test = f"{_images(facts.test_images)}{_places(facts, 'test')}" if facts.test_images else "none"
    lines.append(f"test: {test}")
    if left := [part for part in facts.taken if not part.split]:
        lines.append(f"left out: {', '.join(map(_left, left))}")
    return [*lines, *facts.remarks]


def _kept(spec: DataSpec, facts: DataFacts) -> Iterator[str]:
    if spec.keep == "jpeg":
        images = facts.train_images + facts.validation_images + facts.test_images
        size = images * Jpegs(spec.short_side).bytes_each / 1e9
        yield f"kept as JPEG, shorter side at most {spec.short_side} pixels: about {size:.1f} GB"


def _undecodable(bad: Undecodable | None, where: Path | None) -> str:
    if bad is None:
        return "what cannot be decoded is counted when it is first decoded" if where is not None else ""
    named = bad.first[:_NAMES]
    more = f"; and {bad.count - len(named)} more" if bad.count > len(named) else ""
    return f"cannot be decoded: {bad.count} of {bad.of}: {'; '.join(named)}{more}" if bad.count else ""


def _images(count: int) -> str:
    return f"{count} image{'s' * (count != 1)}"


def _places(facts: DataFacts, split: str) -> str:
    places = ", ".join(part.what for part in facts.taken if part.split == split)
    return f" in {places}" if places else ""


def _names(names: tuple[str, ...]) -> str:
    short = [name if len(name) <= _LONGEST else f"{name[: _LONGEST - 1]}…" for name in names]
    if len(short) > _NAMES + 1:
        short = [*short[:_NAMES], "…", short[-1]]
    return f" ({', '.join(short)})" if short else ""


def _left(part: Taken) -> str:
    said = [str(part.images)] * bool(part.images) + [part.why] * bool(part.why)
    return part.what + (f" ({'; '.join(said)})" if said else "")
