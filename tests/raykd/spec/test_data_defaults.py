"""Large data sets are kept as JPEG where the file of a new sweep says nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from raykd.spec.search import build_sweep, load_sweep

RAW: dict[str, Any] = {
    "name": "x",
    "method": "moco",
    "preset": "digits",
    "student": "test_resnet",
    "epochs": 2,
    "samples": 1,
}
LARGE = {"name": "imagenet", "image_size": 224, "margin": 32}


@pytest.mark.parametrize(
    ("more", "keep", "short_side"),
    [
        ({"data": LARGE}, "jpeg", 256),
        ({"data": {**LARGE, "margin": 117}}, "jpeg", 341),
        ({"data": {**LARGE, "keep": "raw"}}, "raw", 256),
        ({"data": {"name": "imagenet", "image_size": 32}}, "raw", 256),  # 4 GB of pixels
        ({"data": {"name": "stl10", "image_size": 96}}, "raw", 256),  # 113,000 images, 3 GB
        ({"data": "digits"}, "raw", 256),
        ({}, "raw", 256),
        ({"data": LARGE, "axes": {"data.margin": [0, 32]}}, "raw", 256),
    ],
)
def test_what_a_new_sweep_keeps(tmp_path: Path, more: dict[str, Any], keep: str, short_side: int) -> None:
    file = tmp_path / "x.yaml"
    file.write_text(yaml.safe_dump({**RAW, **more}))
    spec = load_sweep(file)
    data = spec.trial({"data.margin": 32} if "axes" in more else {}, 0).data
    assert (data.keep, data.short_side) == (keep, short_side)
    if "data" in more and isinstance(more["data"], dict) and "keep" not in more["data"]:
        recorded = build_sweep({**RAW, **more})  # of an older raykd: as it was
        assert recorded.trial({"data.margin": 32} if "axes" in more else {}, 0).data.keep == "raw"


def test_a_file_for_the_command_line_wins(tmp_path: Path) -> None:
    file = tmp_path / "x.yaml"
    file.write_text(yaml.safe_dump({**RAW, "data": LARGE}))
    assert load_sweep(file, ["data.keep=raw"]).trial({}, 0).data.keep == "raw"
    assert load_sweep(file, ["data.short_side=320"]).trial({}, 0).data.short_side == 320
