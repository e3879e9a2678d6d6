"""Do the intervals of importances hold the truth? Sweeps whose axes have known importances.

    python benchmarks/importance_coverage.py                       # 200 sweeps a row: an hour
    python benchmarks/importance_coverage.py --sweeps 40 --configurations 20 60 --noise 0.3 --resamples 60

Four axes are drawn evenly; the score is a straight line along each, with slopes 3, 2, 1 and 0, and a scatter
of its own. So fANOVA's shares are 9, 4, 1 and 0 fourteenths. Of random sweeps of each size: the share of them
whose 95 % interval holds an axis's true share, the mean share found, how often the wrong axis is named first
without a doubt, and how often a sweep is called too small.
"""

from __future__ import annotations

import argparse
import math
import time
from typing import Any

import numpy as np
from scipy import stats

from raykd.records.history import History
from raykd.records.ledger import Record
from raykd.searching.importance import importances
from raykd.spec.search import SearchSpec, build_sweep

SLOPES = {"lr": 3.0, "temperature": 2.0, "momentum": 1.0, "views.strength": 0.0}
TRUE = {axis: slope**2 / sum(s**2 for s in SLOPES.values()) for axis, slope in SLOPES.items()}
EPOCHS = 4


def space() -> SearchSpec:
    axes: dict[str, Any] = {
        "lr": {"log": [1e-4, 1e-1]},
        "temperature": {"uniform": [0.05, 0.5]},
        "momentum": {"uniform": [0.9, 0.999]},
        "views.strength": {"uniform": [0.1, 1.0]},
    }
    return build_sweep(
        {
            "name": "known",
            "method": "moco",
            "preset": "digits",
            "student": {"arch": "test_efficientnet"},
            "data": {"name": "digits", "image_size": 16},
            "epochs": EPOCHS,
            "samples": 1000,
            "axes": axes,
        }
    )


def sweep(spec: SearchSpec, configurations: int, noise: float, rng: np.random.Generator) -> History:
    """A sweep of trials that all finished. `noise` is the scatter's share of the scores' variance."""
    at = rng.random((configurations, len(SLOPES)))
    signal = at @ np.array(list(SLOPES.values()))
    scatter = math.sqrt(sum(s**2 for s in SLOPES.values()) / 12 * noise / (1 - noise))
    scores = 80 + signal + scatter * rng.standard_normal(configurations)
    records: list[Record] = [{"kind": "sweep", "time": 0.0, "spec": spec.model_dump(mode="json")}]
    for number, (places, score) in enumerate(zip(at, scores, strict=True)):
        params = {axis: _value(axis, place) for axis, place in zip(SLOPES, places, strict=True)}
        name = f"{number:08x}"
        common = {"time": float(number), "trial": name}
        records += [
            {
                **common, "kind": "suggest", "number": number, "arm": name, "replicate": 0, "params": params,
                "config": {"method": "moco", **params}, "origin": "sampler", "attrs": {},
            },
            {**common, "kind": "start", "attempt": 1, "lane": "0"},
            {**common, "kind": "report", "epoch": EPOCHS, "metrics": {"score": float(score)}},
            {**common, "kind": "end", "status": "finished", "reason": None},
        ]  # fmt: skip
    return History.of(records)


def _value(axis: str, place: float) -> float:
    if axis == "lr":
        return float(10 ** (-4 + 3 * place))
    low, high = {"temperature": (0.05, 0.5), "momentum": (0.9, 0.999), "views.strength": (0.1, 1.0)}[axis]
    return float(low + (high - low) * place)


def main() -> None:
    parser = argparse.ArgumentParser(description="Coverage of the intervals of parameter importances.")
    parser.add_argument("--sweeps", type=int, default=200, help="simulated sweeps a row")
    parser.add_argument("--configurations", type=int, nargs="+", default=[20, 40, 100, 200])
    parser.add_argument("--resamples", type=int, default=100)
    parser.add_argument("--noise", type=float, nargs="+", default=[0.1, 0.5], help="share of the variance")
    parser.add_argument("--evaluator", default="fanova")
    asked = parser.parse_args()
    began, spec = time.monotonic(), space()
    print(f"{asked.evaluator}: % of {asked.sweeps} sweeps whose 95 % interval holds the share, mean found")
    columns = "".join(f"{f'{axis} ({true:.2f})':>26}" for axis, true in TRUE.items())
    print(f"{'configurations':>14}{'scatter':>9}{columns}{'order wrong':>13}{'too small':>11}")
    for configurations in asked.configurations:
        for noise in asked.noise:
            held: dict[str, list[bool]] = {axis: [] for axis in TRUE}
            mean: dict[str, list[float]] = {axis: [] for axis in TRUE}
            small, wrong = 0, 0
            for at in range(asked.sweeps):
                rng = np.random.default_rng([7, configurations, at])
                history = sweep(spec, configurations, noise, rng)
                table = importances(spec, history, asked.evaluator, resamples=asked.resamples).tables[0]
                for share in table.shares:
                    held[share.axis].append(share.low <= TRUE[share.axis] <= share.high)
                    mean[share.axis].append(share.share)
                open_ = any("is open" in said for said in table.warnings)
                wrong += not open_ and bool(table.shares) and table.shares[0].axis != "lr"
                small += any("too small" in said for said in table.warnings)
            cells = "".join(f"{_share(held[axis]):>19}{np.mean(mean[axis]):7.2f}" for axis in TRUE)
            of = asked.sweeps
            print(f"{configurations:14}{noise:9.0%}{cells}{wrong / of:13.1%}{small / of:11.0%}", flush=True)
    print(f"{time.monotonic() - began:.0f} s")


def _share(said: list[bool]) -> str:
    found = stats.binomtest(sum(said), len(said)).proportion_ci(0.95)
    return f"{100 * np.mean(said):3.0f} [{100 * found.low:3.0f}, {100 * found.high:3.0f}]"


if __name__ == "__main__":
    main()
