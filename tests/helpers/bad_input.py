"""What people get wrong, and how a row of it is written: see `bad_specs.py` and `bad_files.py`."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import yaml
from command import SMALL

from raykd.spec.document import parse_yaml

STUDY = """\
name: t
base:
  method: retro
  preset: digits
  student: {arch: test_efficientnet, options: {channel_multiplier: 0.5}}
  teacher: {arch: test_resnet, train: {method: moco, preset: digits, epochs: 2}}
  data: {name: digits, image_size: 16}
  epochs: 4
  fixed: {queue_size: 256}
design: one_at_a_time
factors: {adapter: [linear, mlp]}
replicates: 3
references: []
"""
FILE = "HERE/s.yaml"


def changed(base: str, change: dict[str, Any]) -> str:
    """The file with values laid over it, `a/b/c: value`; None takes the field away."""
    whole: dict[str, Any] = parse_yaml(base, "")
    for path, value in change.items():
        here = whole
        *above, last = path.split("/")
        for step in above:
            here = here.setdefault(step, {})
        if value is None:
            here.pop(last)
        else:
            here[last] = value
    return yaml.safe_dump(whole)


SWEEP = changed(SMALL, {"baseline": None, "references": []})


class Bad(NamedTuple):
    """One mistake."""

    name: str
    make: Callable[[Path], Any]  # writes what is needed into an empty folder
    arguments: str  # HERE is that folder, STORE the storage
    field: str  # how the message begins
    word: str  # what it says besides


def text(name: str, content: str, field: str, word: str, verb: str = "run") -> Bad:
    """A file with this content."""
    return Bad(name, lambda here: (here / "s.yaml").write_text(content), f"{verb} HERE/s.yaml", field, word)


def raw(name: str, content: bytes, field: str, word: str) -> Bad:
    return Bad(name, lambda here: (here / "s.yaml").write_bytes(content), "run HERE/s.yaml", field, word)


def sweep(name: str, change: dict[str, Any], field: str, word: str) -> Bad:
    return text(name, changed(SWEEP, change), field, word)


def study(name: str, change: dict[str, Any], field: str, word: str) -> Bad:
    return text(name, changed(STUDY, change), field, word, "ablate")


def plugin(name: str, content: str | None, change: dict[str, Any], field: str, word: str) -> Bad:
    """A sweep beside a module, called as the one that it names."""

    def both(here: Path) -> None:
        (here / "s.yaml").write_text(changed(SWEEP, change))
        if content is not None:
            named = re.search(r"own_\w+", str(change))
            assert named is not None
            (here / f"{named[0]}.py").write_text(content)

    return Bad(name, both, "run HERE/s.yaml", field, word)


def data(name: str, make: Callable[[Path], Any], about: dict[str, Any], field: str, word: str) -> Bad:
    """A sweep on the data that `make` writes into HERE/data."""

    def both(here: Path) -> None:
        make(here / "data")
        change = {"data": {"path": str(here / "data"), "image_size": 16, **about}}
        (here / "s.yaml").write_text(changed(SWEEP, change))

    return Bad(name, both, "run HERE/s.yaml", field, word)


def checkpoint(name: str, file: str, make: Callable[[Path], Any], word: str, field: str = "") -> Bad:
    """A sweep with the teacher that `make` writes."""

    def both(here: Path) -> None:
        make(here / file)
        change = {"teacher": {"arch": "test_resnet", "checkpoint": str(here / file)}}
        (here / "s.yaml").write_text(changed(SWEEP, change))

    return Bad(name, both, "run HERE/s.yaml", field or "teacher.checkpoint", word)


def earlier(name: str, ledger: bytes, word: str) -> Bad:
    """A sweep that starts from another one with this ledger."""

    def both(here: Path) -> None:
        (here / "old").mkdir()
        (here / "old" / "ledger.jsonl").write_bytes(ledger)
        (here / "s.yaml").write_text(changed(SWEEP, {"warm_start": [str(here / "old")]}))

    return Bad(name, both, "run HERE/s.yaml --dry-run", "warm_start.0", word)


def verb(name: str, arguments: str, field: str, word: str) -> Bad:
    return Bad(name, lambda here: (here / "s.yaml").write_text(SWEEP), arguments, field, word)
