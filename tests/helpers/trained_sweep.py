"""A sweep whose trials are really trained, without Ray, and written down as a driver does."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from raykd.records.ledger import Ledger
from raykd.spec.sweep import SweepSpec
from trainables.core.files import cache_folder
from trainables.spec.trial import TrialSpec
from trainables.training.flat_names import flatten
from trainables.training.loop import prepare, train
from trainables.training.workspace import EpochReport, Workspace


def run(trial: TrialSpec, folder: Path, report: Callable[[EpochReport], bool], teachers: Path) -> None:
    """Train one trial in `folder`."""
    workspace = Workspace(folder, cache_folder(), teachers)
    prepare(trial, workspace)
    train(trial, report, workspace)


def trained_sweep(folder: Path, spec: SweepSpec, trials: Sequence[tuple[dict[str, Any], int]]) -> Path:
    """The folder of a sweep with one trial for each of `trials`: (parameters, epochs that it trains).

    One of fewer epochs than the spec's was stopped; one of 0 was suggested and never started.
    """
    with Ledger.create(folder) as ledger:
        spec_dump = spec.model_dump(mode="json")
        ledger.append(
            "sweep", spec=spec_dump, spec_hash=spec.hash(), sampler={}, scheduler={},
            versions={"raykd": "0.1.0"}, source=None,
        )  # fmt: skip
        ledger.append("reference", name="untrained", label="untrained", metrics={"score": 74.5}, trial=None)
        for number, (params, epochs) in enumerate(trials):
            trial = spec.trial(params, 0)
            name = trial.signature()
            ledger.append(
                "suggest", trial=name, number=number, arm=trial.arm(), replicate=0, params=params,
                config=flatten(trial), origin="sampler", attrs={},
            )  # fmt: skip
            if not epochs:
                continue
            ledger.append("start", trial=name, attempt=1, lane="lane-0")

            def report(said: EpochReport, name: str = name, epochs: int = epochs) -> bool:
                ledger.append("report", trial=name, epoch=said.epoch, metrics=said.metrics)
                return said.epoch < epochs

            run(trial, folder / "trials" / name, report, folder.parent / ".teachers")
            ended = "finished" if epochs == trial.epochs else "stopped"
            ledger.append("end", trial=name, status=ended, reason=None)
    return folder
