"""Why a trial asks its teacher in every step: it mixes images, or compares maps."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from trainables.planning.sharing import MAPS, MIXED, AskedOf
from trainables.training.resolve import resolve

torch.set_num_threads(1)


@pytest.mark.parametrize(
    ("method", "config", "why"),
    [
        ("queue_pseudo_labels", {}, MIXED),
        ("queue_pseudo_labels", {"mixup_alpha": 0}, ""),
        ("patch_regression", {}, MAPS),
        ("patch_regression", {"mixup_alpha": 0}, MAPS),
        ("compress", {}, ""),
    ],
)
def test_mixtures_and_maps_are_not_shared(method: str, config: dict[str, Any], why: str) -> None:
    trained = {"method": "moco", "preset": "digits", "epochs": 1}
    trial = resolve(
        {
            "method": method,
            "preset": "digits",
            "config": config,
            "student": {"arch": "test_efficientnet"},
            "teacher": {"arch": "test_resnet", "train": trained},
        }
    )
    asked = AskedOf()(trial)
    assert asked.why_not == why and bool(asked.bytes) == (not why)
