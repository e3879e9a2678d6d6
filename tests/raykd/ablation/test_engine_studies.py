"""Whole studies of known truth through the real proposer, records, history and conclusions: how often wrong.

`benchmarks/ablation_engine.py` prints more of it; `test_stats_error_rates.py` asks the statistics alone.
"""

from __future__ import annotations

from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest
from scipy import stats
from simulated_study import CachedStudy, SimulatedStudy
from studies import GAMMA

from raykd.ablation.conclusions import conclude
from raykd.ablation.results import Results
from raykd.ablation.study import build_study

LEVELS = [0.1, 0.2, 0.3, 1.0]
FIXED: dict[str, Any] = {**GAMMA, "factors": {"gamma": LEVELS}, "replicates": 4}
SEQUENTIAL: dict[str, Any] = {**FIXED, "replicates": None, "max_replicates": 8}
STUDIES: dict[str, dict[str, Any]] = {
    "fixed": FIXED,
    "decide": {**SEQUENTIAL, "decide": True},
    "precision": {**SEQUENTIAL, "precision": 1.5},
    "factorial": {
        **FIXED,
        "design": "factorial",
        "factors": {"gamma": LEVELS[:2], "symmetric": [True, False]},
    },
    "compare": {
        **FIXED,
        "design": "compare",
        "factors": None,
        "arms": {str(gamma): {"gamma": gamma} for gamma in LEVELS},
    },
}


def study(name: str, **changed: Any) -> CachedStudy:
    raw = {k: v for k, v in {**STUDIES[name], **changed}.items() if v is not None}
    return CachedStudy.of(build_study(raw, Path("nowhere")))


def play(spec: CachedStudy, seed: int, gain: float = 0.0, failing: float = 0.0) -> Results:
    """A seed moves all arms by sd 2, a trial has sd 1 of its own; the last arm is better by `gain`."""
    rng = np.random.default_rng(seed)
    scores = 80 + 2 * rng.standard_normal(20) + rng.standard_normal((len(spec.arms), 20))
    scores[-1] += gain
    failed = rng.random(scores.shape) < failing
    place = {label: row for row, label in enumerate(spec.arms)}

    def score(arm: str, replicate: int) -> float | None:
        return None if failed[place[arm], replicate] else float(scores[place[arm], replicate])

    return conclude(spec, SimulatedStudy(spec, score, order=Random(seed)).run())


def claims(results: Results) -> bool:
    """Does the study say anywhere that something differs?"""
    if results.rules.sequential:
        return any(arm.verdict and arm.verdict.outcome in ("better", "worse") for arm in results.arms)
    said = any(arm.comparison is not None and arm.comparison.p_holm <= 0.05 for arm in results.arms)
    if results.effects is not None:
        said |= any(effect.p_holm <= 0.05 for effect in results.effects.effects)
    return said or (results.ranking is not None and len(results.ranking.groups) > 1)


@pytest.mark.parametrize("count", [40, pytest.param(2000, marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", STUDIES)
def test_studies_of_equal_arms_claim_a_difference_in_at_most_five_percent(name: str, count: int) -> None:
    """Arms that fail now and then included. Uncorrected, 40 studies would claim about 15."""
    spec = study(name)
    wrong = sum(claims(play(spec, seed, failing=0.03)) for seed in range(count))
    assert stats.binomtest(wrong, count, 0.05, alternative="greater").pvalue > 0.001, wrong


def test_a_sequential_study_decides_as_a_fixed_one_on_fewer_replicates() -> None:
    early, whole = study("decide"), study("fixed", replicates=8)
    alike, used = [], []
    for seed in range(25):
        one, other = play(early, seed, gain=4.0), play(whole, seed, gain=4.0)
        found = one.arms[-1].verdict
        assert found is not None and other.arms[-1].comparison is not None
        alike.append((found.outcome == "better") == (other.arms[-1].comparison.p_holm <= 0.05))
        used.append(found.pairs)
        # What it has seen is what the fixed one has seen: the same trials have the same scores.
        assert one.arms[-1].scores[: found.pairs] == other.arms[-1].scores[: found.pairs]
    assert sum(alike) >= 22 and np.mean(used) < 7
