"""Sweeps that are played without Ray and without training: a conditional space, a driver, a smooth score."""

from __future__ import annotations

import json
import math
from random import Random
from typing import Any

from optuna.trial import TrialState

from raykd.records.earlier import Earlier
from raykd.records.history import History
from raykd.searching.proposer import Proposal, Proposer, Repeat
from raykd.spec.search import SearchSpec, build_sweep

BASE: dict[str, Any] = {
    "name": "s",
    "method": ["retro", "moco"],
    "student": {"arch": "test_efficientnet"},
    "teacher": {"arch": "test_resnet", "train": {"method": "moco", "epochs": 2}},
    "epochs": 8,
    "samples": 30,
    "start": "sampler",
    "axes": {
        "lr": {"log": [1e-3, 1e-1]},
        "gamma": {"log": [0.01, 1]},
        "adapter": ["linear", "mlp"],
        "symmetric": {"pick": [True, False], "when": {"adapter": "mlp"}},
        "head_dim": {"integer": [32, 128], "step": 32},
        "clip_grad": [None, 1.0],
        "views.strength": {"uniform": [0, 1]},
    },
}
# Small enough that these learn within a few trials.
QUICK: dict[str, dict[str, Any]] = {
    "tpe": {"n_startup_trials": 3},
    "gp": {"n_startup_trials": 3},
    "cmaes": {"popsize": 4},
    "nsgaii": {"population_size": 4},
    "grid": {"levels": 2},
}


def sweep(sampler: str = "tpe", seed: int = 0, **change: Any) -> SearchSpec:
    return build_sweep(
        {**BASE, "sampler": {"name": sampler, "seed": seed, **QUICK.get(sampler, {})}, **change}
    )


def score(params: dict[str, Any], epoch: int) -> float:
    """A smooth answer with its best at lr 0.01, strength 0.4."""
    return (
        90
        - 5 * abs(math.log10(params.get("lr", 0.01)) + 2)
        - 9 * abs(params.get("views.strength", 0.4) - 0.4)
        + epoch
    )


class Driver:
    """Plays the engine: so many trials at once, some stopped, some failed, everything in records as JSON."""

    def __init__(
        self, spec: SearchSpec, lanes: int = 3, seed: int = 0, earlier: Earlier | None = None
    ) -> None:
        self.spec, self.lanes, self.rng = spec, lanes, Random(seed)
        self.records: list[dict[str, Any]] = []
        self.live: list[Proposal] = []
        self.done: list[Proposal] = []
        self.write("sweep", spec=spec.model_dump(mode="json"))
        if earlier is not None:
            self.write("warm_start", **earlier.record())

    def write(self, kind: str, **fields: Any) -> None:
        self.records.append(
            json.loads(json.dumps({"kind": kind, "time": float(len(self.records)), **fields}))
        )

    def propose(self, proposer: Proposer) -> Proposal | Repeat | None:
        found = proposer.propose()
        if isinstance(found, Repeat):
            self.write("repeat", **found.record())
        elif found is not None:
            self.write("suggest", **found.record())
            self.live.append(found)
        return found

    def finish_one(self, proposer: Proposer) -> None:
        """Let one trial in flight report and end, by chance."""
        trial = self.live.pop(self.rng.randrange(len(self.live)))
        status = self.rng.choice(["finished", "finished", "stopped", "failed"])
        last = {"finished": 8, "stopped": self.rng.randint(1, 7), "failed": self.rng.randint(0, 7)}[status]
        self.write("start", trial=trial.trial, attempt=1, lane="0")
        for epoch in range(1, last + 1):
            value = score(trial.params, epoch)
            proposer.report(trial.trial, epoch, value)
            self.write("report", trial=trial.trial, epoch=epoch, metrics={"score": value})
        self.done.append(trial)
        proposer.end(trial.trial, status)
        self.write("end", trial=trial.trial, status=status, reason=None)

    def step(self, proposer: Proposer) -> bool:
        """One move of the engine. False when the sweep is over."""
        if len(self.live) < self.lanes and self.propose(proposer) is not None:
            return True
        if self.live:
            self.finish_one(proposer)
            return True
        return False

    @property
    def history(self) -> History:
        return History.of(self.records)

    def resumed(self, samples: int | None = None) -> Proposer:
        """A proposer rebuilt from what was written."""
        history = self.history
        proposer = Proposer(self.spec, samples, history.earlier)
        proposer.replay(history)
        return proposer


def play(spec: SearchSpec, **how: Any) -> tuple[Driver, Proposer]:
    driver = Driver(spec, **how)
    proposer = driver.resumed()
    while driver.step(proposer):
        pass
    return driver, proposer


def states(proposer: Proposer) -> list[tuple[TrialState, dict[str, Any], Any, dict[int, float]]]:
    """All that Optuna was told."""
    trials = proposer.study.get_trials()
    return [(t.state, t.params, t.value, t.intermediate_values) for t in trials]
