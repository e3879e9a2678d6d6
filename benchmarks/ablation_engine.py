"""Can a whole study be trusted? Studies of known truth, played through the engine's own proposer and history.

    python benchmarks/ablation_engine.py                      # 2,000 studies a row, half an hour on one core
    python benchmarks/ablation_engine.py equal --studies 200
    python benchmarks/ablation_engine.py equal --only decide

`ablation_stats.py` asks the statistics alone. Here a study file is compiled, every trial is proposed by
`Rounds`, ends in random order among three lanes, goes through the ledger's records into a `History`, and what
`conclude` says at the end is counted; no Ray and no training. A seed moves all arms alike (sd 2 points), a
trial has a scatter of its own (sd 1 point). Shares come with their 95 % Clopper-Pearson intervals.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
from scipy import stats

from raykd.ablation.conclusions import conclude
from raykd.ablation.results import Results
from raykd.ablation.study import build_study

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "helpers"))

from simulated_study import CachedStudy, SimulatedStudy

SEED_SD, TRIAL_SD = 2.0, 1.0
MOST = 10  # replicates of any study here
BASE = {
    "method": "moco",
    "preset": "digits",
    "student": {"arch": "test_efficientnet"},
    "data": {"name": "digits", "image_size": 16},
    "epochs": 2,
}
FACTORS = {"temperature": [0.1, 0.2, 0.3, 0.4, 0.5]}
TWO_LEVELS = {"temperature": [0.1, 0.2], "momentum": [0.9, 0.99], "head_ratio": [1.0, 0.5]}
FIXED: dict[str, Any] = {"design": "one_at_a_time", "factors": FACTORS, "replicates": 5}
DECIDE: dict[str, Any] = {"design": "one_at_a_time", "factors": FACTORS, "decide": True, "max_replicates": 10}
STUDIES: dict[str, dict[str, Any]] = {
    "fixed": FIXED,
    "decide": DECIDE,
    "precision": {
        "design": "one_at_a_time",
        "factors": FACTORS,
        "precision": 1.5,
        "max_replicates": 10,
    },
    "factorial": {"design": "factorial", "factors": TWO_LEVELS, "replicates": 3},
    "compare": {
        "design": "compare",
        "arms": {f"t {level}": {"temperature": level} for level in FACTORS["temperature"]},
        "replicates": 5,
    },
}


def study(name: str, **changed: Any) -> CachedStudy:
    raw = {"name": name, "base": BASE, **STUDIES[name], **changed}
    return CachedStudy.of(build_study({k: v for k, v in raw.items() if v is not None}, Path("nowhere")))


def play(
    spec: CachedStudy, seed: tuple[int, int], effects: Mapping[str, float], failing: float = 0.0
) -> Results:
    """One study to its end. Scores are those of the seed, whatever the study's rule asks for."""
    rng = np.random.default_rng(seed)
    shape = (len(spec.arms), MOST)
    scores = 80 + SEED_SD * rng.standard_normal(MOST) + TRIAL_SD * rng.standard_normal(shape)
    scores += np.array([effects.get(label, 0.0) for label in spec.arms])[:, None]
    failed = rng.random(scores.shape) < failing
    place = {label: row for row, label in enumerate(spec.arms)}

    def score(arm: str, seed: int) -> float | None:
        return None if failed[place[arm], seed] else float(scores[place[arm], seed])

    history = SimulatedStudy(spec, score, order=Random(int(rng.integers(2**32)))).run()
    assert history.done
    return conclude(spec, history)


def claims(results: Results) -> dict[str, bool]:
    """Which kinds of claim of a difference a study makes."""
    alpha = results.rules.alpha
    found = {"arms": any(differs(results, arm.label) for arm in results.arms)}
    if results.effects is not None:
        found["effects"] = any(e.p_holm <= alpha for e in results.effects.effects)
    if results.ranking is not None:
        found["ranks"] = len(results.ranking.groups) > 1
    return found


def differs(results: Results, label: str) -> int:
    """1: the study says that the arm is better than the base, -1: worse, 0: neither."""
    arm = next(arm for arm in results.arms if arm.label == label)
    if arm.comparison is None:
        return 0
    if results.rules.sequential:
        assert arm.verdict is not None
        return {"better": 1, "worse": -1}.get(arm.verdict.outcome, 0)
    return int(np.sign(arm.comparison.mean)) if arm.comparison.p_holm <= results.rules.alpha else 0


def equal(count: int, names: list[str]) -> Iterator[str]:
    yield f"All arms equal: % of {count} studies that claim a difference; 5 at most is promised"
    yield f"{'study':12}{'trials fail':>12}{'any claim':>24}{'of arms':>24}{'of effects or ranks':>24}"
    for name in names:
        for failing in (0.0, 0.05):
            spec = study(name)
            found = [claims(play(spec, (11, at), {}, failing)) for at in range(count)]
            cells = [share([any(each.values()) for each in found]), share([each["arms"] for each in found])]
            other = [[each[kind] for each in found] for kind in found[0] if kind != "arms"]
            cells += [share(other[0])] if other else [""]
            yield f"{name:12}{failing:12.0%}" + "".join(f"{cell:>24}" for cell in cells)


def known(count: int, names: list[str]) -> Iterator[str]:
    yield f"\nKnown differences: % of {count} studies that find their sign, and whose interval holds them"
    yield f"{'study':12}{'true difference':>16}{'sign found':>24}{'wrong sign':>24}{'covered':>24}"
    for name in names:
        spec = study(name)
        others = [label for label in spec.arms if label != spec.study.base]
        truth = dict(zip(others, (0.0, 1.0, 2.0, 4.0), strict=False))
        played = [play(spec, (12, at), truth) for at in range(count)]
        for label, true in truth.items():
            said = [differs(results, label) for results in played]
            inside = [holds(results, label, true) for results in played]
            cells = [share([s == np.sign(true) != 0 for s in said]), share([s * true < 0 for s in said])]
            if not true:
                cells = ["", share([s != 0 for s in said])]
            yield f"{name:12}{true:16}" + "".join(f"{cell:>24}" for cell in [*cells, share(inside)])


def holds(results: Results, label: str, true: float) -> bool:
    """Does the interval that is shown hold the true difference?"""
    arm = next(arm for arm in results.arms if arm.label == label)
    assert arm.comparison is not None
    interval = arm.verdict.interval if arm.verdict is not None else arm.comparison.interval
    return interval.low <= true <= interval.high


def effects(count: int) -> Iterator[str]:
    yield f"\nA factorial of three factors: effects that are known, % of {count} studies"
    spec = study("factorial")
    # One main effect of 2 points, and an interaction: 1.5 points only where the other two are changed.
    truth = {
        label: 2.0 * (arm.levels["temperature"] == 0.2)
        + 1.5 * (arm.levels["momentum"] == 0.99 and arm.levels["head_ratio"] == 0.5)
        for label, arm in spec.arms.items()
    }
    expected = {(0,): 2.0, (1,): 0.75, (2,): 0.75, (0, 1): 0.0, (0, 2): 0.0, (1, 2): 1.5}
    played = [play(spec, (13, at), truth).effects for at in range(count)]
    for key, true in expected.items():
        found = [next(e for e in each.effects if e.factors == key) for each in played if each is not None]
        inside = share([e.interval.low <= true <= e.interval.high for e in found])
        said = share([e.p_holm <= 0.05 for e in found])
        yield f"  effect {'x'.join(map(str, key)):5} of {true:4}: claimed {said}, covered {inside}"


def fewer(count: int) -> Iterator[str]:
    yield f"\n`decide`, at most 10 replicates, and 10 fixed ones on the same scores, {count} studies"
    yield f"{'true differences':28}{'arms decided alike':>24}{'trials':>10}{'fixed':>8}{'fewer':>8}"
    early, whole = study("decide"), study("fixed", replicates=10)
    for truth in ((0.0,) * 4, (0.0, 0.0, 0.0, 3.0), (0.0, 1.0, 2.0, 4.0), (4.0,) * 4):
        gains = dict(zip(list(early.arms)[1:], truth, strict=True))
        alike: list[bool] = []
        trials = []
        for at in range(count):
            one, other = (play(spec, (14, at), gains) for spec in (early, whole))
            alike += [differs(one, label) == differs(other, label) for label in gains]
            trials.append(sum(arm.finished for arm in one.arms))
        used, most = float(np.mean(trials)), whole.samples
        yield f"{truth!s:28}{share(alike):>24}{used:10.1f}{most:8}{1 - used / most:8.0%}"


def share(said: list[bool]) -> str:
    found = stats.binomtest(sum(said), len(said)).proportion_ci(0.95)
    return f"{100 * np.mean(said):5.2f} [{100 * found.low:5.2f}, {100 * found.high:5.2f}]"


def main() -> None:
    parser = argparse.ArgumentParser(description="Error rates, power and savings of whole simulated studies.")
    tables = ("equal", "known", "effects", "fewer")
    parser.add_argument("tables", nargs="*", default=tables, help=", ".join(tables))
    parser.add_argument("--studies", type=int, default=2000, help="simulated studies a row")
    parser.add_argument("--only", nargs="+", choices=STUDIES, default=list(STUDIES), help="kinds of study")
    asked = parser.parse_args()
    began = time.monotonic()
    for name in asked.tables:
        rows = {
            "equal": lambda: equal(asked.studies, asked.only),
            "known": lambda: known(asked.studies, asked.only),
            "effects": lambda: effects(asked.studies),
            "fewer": lambda: fewer(asked.studies),
        }[name]()
        for row in rows:
            print(row, flush=True)
    print(f"{time.monotonic() - began:.0f} s")


if __name__ == "__main__":
    main()
