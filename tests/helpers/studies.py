"""Studies that tests build: settings as a file would hold them, and the spec that they compile to."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from raykd.ablation.study import build_study
from raykd.spec.study import StudySpec

NOWHERE = Path("nowhere")
BASE: dict[str, Any] = {
    "method": "retro",
    "preset": "digits",
    "student": {"arch": "test_efficientnet", "options": {"channel_multiplier": 0.5}},
    "teacher": {"arch": "test_resnet", "train": {"method": "moco", "preset": "digits", "epochs": 2}},
    "data": {"name": "digits", "image_size": 16},
    "views": {"recipe": "digits", "strength": 0.5},
    "epochs": 2,
    "fixed": {"lr": 0.006},
}
PARTS: dict[str, Any] = {
    "name": "parts",
    "base": BASE,
    "design": "leave_one_out",
    "components": {"mean student": {"mean_student": False}, "symmetric term": {"symmetric": False}},
    "replicates": 3,
}
GAMMA: dict[str, Any] = {
    "name": "gamma",
    "base": BASE,
    "design": "one_at_a_time",
    "factors": {"gamma": [0.1, 1.0]},
    "replicates": 3,
}
METHODS: dict[str, Any] = {
    "name": "methods",
    "base": BASE,
    "design": "compare",
    "arms": {"retro": {}, "seed": {"method": "seed"}, "moco": {"method": "moco", "epochs": 4}},
    "replicates": 2,
}


def study(raw: dict[str, Any], **change: Any) -> StudySpec:
    """The spec of a study with some keys changed; a key of None is left out."""
    written = {**raw, **change}
    return build_study({key: value for key, value in written.items() if value is not None}, NOWHERE)
