"""`benchmarks/search.py` counts what a sweep with these proposals and decisions would have trained."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from raykd.spec.search import build_sweep, load_sweep

pytestmark = pytest.mark.slow
EPOCHS, TRIALS = 16, 8


@pytest.fixture
def search(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(Path(__file__).resolve().parents[1] / "benchmarks"))
    import search

    return search


def rising(params: dict[str, Any]) -> np.ndarray:
    """Scores that rise with each epoch, and are higher at a higher learning rate."""
    return np.arange(1, EPOCHS + 1) + 10 * np.log10(params["lr"])


def test_epochs_are_counted_until_the_goal(search: Any) -> None:
    spec = search.with_seed(load_sweep("quickstart"), search.RANDOM, 3, TRIALS)
    assert search.play(spec, rising, np.inf, 2) == EPOCHS * TRIALS, "no stopping, and no goal"
    assert search.play(spec, lambda params: rising(params) * 0 + 1, 1.0, 2) == 1
    stopping = build_sweep({**spec.model_dump(mode="json"), "scheduler": {"name": "asha"}})
    assert EPOCHS < search.play(stopping, rising, np.inf, 2) < EPOCHS * TRIALS / 2


def test_intervals_hold_the_ratio_of_means(search: Any) -> None:
    base, other = np.array([100, 200, 300, 400]), np.array([20, 40, 60, 80])
    line = search.table({"other": other}, base)[-1]
    assert "| 50 [" in line and "| 0.20 [" in line
