"""Histories made by hand: of a study with given final scores, and of a search over given axes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from raykd.ablation.conclusions import conclude
from raykd.ablation.results import Results
from raykd.records.history import History
from raykd.records.ledger import KINDS, LEDGER, Ledger, as_line, encode
from raykd.searching.proposer import Proposal, Proposer
from raykd.spec.arms import ARM
from raykd.spec.search import SearchSpec, build_sweep
from raykd.spec.study import StudySpec
from raykd.spec.sweep import SweepSpec

EPOCHS = 4
AXES = {"lr": {"log": [1e-4, 1e-1]}, "adapter": ["linear", "mlp"], "temperature": {"uniform": [0.1, 0.3]}}
BASE, ARM_A = "gamma=0.1", "gamma=1.0"
Scores = dict[str, list[float | None]]  # None: failed; NaN: finished without a finite score


def history_of(spec: SweepSpec, scores: Scores, first: float = 99.0) -> History:
    """Trials of two epochs: every one scores `first` after the first and what is given after the last."""
    records: list[dict[str, Any]] = [{"kind": "sweep", "time": 0.0, "spec": spec.model_dump(mode="json")}]

    def write(kind: str, **fields: Any) -> None:
        records.append({"kind": kind, "time": float(len(records)), **fields})

    number = 0
    for label, row in scores.items():
        for seed, score in enumerate(row):
            trial = f"{number:08x}"
            config = {"method": "retro", "epochs": 2}
            params, attrs = {ARM: label}, {}
            write("suggest", trial=trial, number=number, arm="a", replicate=seed, params=params,
                  config=config, origin="round", attrs=attrs)  # fmt: skip
            write("start", trial=trial, attempt=1, lane="0")
            write("report", trial=trial, epoch=1, metrics={"score": first})
            if score is not None:
                write("report", trial=trial, epoch=2, metrics={"score": score})
            write("end", trial=trial, status="failed" if score is None else "finished", reason=None)
            number += 1
    return History.of(records)


def results(spec: StudySpec, scores: Scores) -> Results:
    return conclude(spec, history_of(spec, scores))


def put(folder: Path, records: list[Any]) -> None:
    """Write records as the ledger of a sweep."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / LEDGER).write_bytes(b"".join(as_line(encode(one)) for one in records))


def a_sweep(axes: dict[str, Any], samples: int, **more: Any) -> SearchSpec:
    """A search of `samples` trials over `axes`."""
    return build_sweep(
        {
            "name": "known",
            "method": "retro",
            "preset": "digits",
            "student": {"arch": "test_efficientnet"},
            "teacher": {"arch": "test_resnet", "train": {"method": "moco", "preset": "digits", "epochs": 1}},
            "data": {"name": "digits", "image_size": 16},
            "epochs": EPOCHS,
            "samples": samples,
            "sampler": {"name": "random", "seed": 3},
            "axes": axes,
            **more,
        }
    )


def ledger(folder: Path, spec: SweepSpec, **head: Any) -> Ledger:
    found = Ledger.create(folder)
    common = {"sampler": {"name": "tpe"}, "scheduler": {}, "versions": {"raykd": "0.1.0"}, "source": None}
    found.append("sweep", spec=spec.model_dump(mode="json"), spec_hash=spec.hash(), **{**common, **head})
    return found


def search(
    storage: Path,
    statuses: str,
    label: str = "raw pixels",
    reason: str | None = None,
    axes: dict[str, Any] = AXES,
    **spec: Any,
) -> Path:
    """A sweep of trials that finish (f), are stopped at epoch 2 (s), fail (x) or are in flight (r)."""
    made = a_sweep(axes, len(statuses), scheduler={"name": "asha", "grace": 1, "factor": 2}, **spec)
    folder = storage / "known"
    proposer = Proposer(made)
    source = {"path": "/data/my space.yaml", "overrides": ["samples=8"]}
    with ledger(folder, made, source=source) as said:
        said.append(
            "reference", name="raw_pixels", label=label, metrics={"score": 61.25, "score_se": 0.5}, trial=None
        )
        for number, status in enumerate(statuses):
            proposal = proposer.propose()
            assert isinstance(proposal, Proposal)
            said.append("suggest", **proposal.record())
            said.append("start", trial=proposal.trial, attempt=1, lane="lane-0")
            for epoch in range(1, {"f": 4, "s": 2, "x": 0, "r": 1}[status] + 1):
                score = 60 + 3 * epoch + 7 * (number * 5 % 11) / 11
                said.append(
                    "report", trial=proposal.trial, epoch=epoch, metrics={"score": score, "score_se": 0.25}
                )
            if status != "r":
                ends = {"f": "finished", "s": "stopped", "x": "failed"}[status]
                said.append(
                    "end", trial=proposal.trial, status=ends, reason=reason if status == "x" else None
                )
    return folder


def a_study(storage: Path, spec: StudySpec, scores: dict[str, list[float | None]]) -> Path:
    """The ledger of a history made by hand."""
    folder = storage / spec.name
    with ledger(folder, spec) as said:
        for trial in history_of(spec, scores).trials.values():
            fields = {name: getattr(trial, name) for name in KINDS["suggest"]}
            said.append("suggest", **fields)
            said.append("start", trial=trial.trial, attempt=1, lane="lane-0")
            for epoch, metrics in trial.reports.items():
                said.append("report", trial=trial.trial, epoch=epoch, metrics=metrics)
            said.append("end", trial=trial.trial, status=trial.status, reason="out of memory")
    return folder
