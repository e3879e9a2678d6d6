"""What a sweep would do, for `run --dry-run`: said before anything is spent."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

from raykd.console import Grid, Line, duration
from raykd.history import History
from raykd.proposer import Proposal, Proposer
from raykd.retune import searches
from raykd.spec import SweepSpec
from raykd.storage import named
from raykd.validate import describe_axes

_SHOWN = 3


def plan(spec: SweepSpec, folder: Path) -> dict[str, Any]:
    """Axes, number of trials, largest cost in epochs, sampled configurations, and where files would go."""
    return {
        "name": spec.name,
        "methods": list(spec.methods),
        "axes": [list(row) for row in describe_axes(spec)],
        "trials": spec.trials,
        "most_epochs": spec.trials * spec.epochs,
        "scheduler": spec.scheduler.model_dump(mode="json"),
        "sampler": spec.sampler.model_dump(mode="json"),
        "workers": spec.workers.model_dump(mode="json"),
        "samples": samples(spec, _SHOWN),
        "folder": named(folder),
        "tensorboard": str(folder / "tensorboard"),
        "log": str(folder / "log.txt"),
    }


def plan_study(spec: SweepSpec, folder: Path, history: History | None = None) -> dict[str, Any]:
    """Arms with what each differs in, and the worst case: trials, epochs, seconds if `history` knows some."""
    rules = spec.study
    assert rules is not None
    arms: list[dict[str, Any]] = []
    for label, arm in spec.arms.items():
        changes = {name: value for name, value in (("method", arm.method), ("preset", arm.preset)) if value}
        changes |= arm.settings
        epochs = arm.epochs or spec.epochs
        arms.append(
            {
                "arm": label,
                "changes": ", ".join(f"{name} {value}" for name, value in changes.items()) or "nothing",
                "follows from it": ", ".join(f"{name} {a} -> {b}" for name, (a, b) in arm.also.items()),
                "trained parameters": arm.trained_parameters,
                "epochs": epochs,
                "most epochs in all": epochs * rules.replicates,
            }
        )
    before = sum(s.samples * s.epochs for s in searches(spec).values()) if history is None else 0
    until = "the sign is known" if rules.decide else f"± {rules.precision} points"
    ended = [t for t in history.trials.values() if t.ended is not None] if history is not None else []
    most = sum(arm["most epochs in all"] for arm in arms)
    done = sum(t.epoch for t in ended)
    return {
        "name": spec.name,
        "design": rules.design.replace("_", " "),
        "base": rules.base,
        "replicates": f"until {until}, {rules.replicates} at most" if rules.sequential else rules.replicates,
        "trials": spec.trials,
        "most_epochs": most,
        "search_epochs": before,
        "seconds": sum(t.wall_s for t in ended) / done * most if done else None,
        "arms": arms,
        "folder": named(folder),
    }


def study_lines(planned: Mapping[str, Any], remarks: Iterable[str]) -> Iterator[Line | Grid]:
    """A study's plan as the terminal shows it."""
    yield Line(f"{planned['name']}: {planned['design']}, replicates: {planned['replicates']}", "bold")
    yield Line(f"at most {planned['trials']} trials, {planned['most_epochs']} epochs in all")
    if planned["search_epochs"]:
        yield Line(f"before them, {planned['search_epochs']} epochs at most of each arm's own search")
    if planned["seconds"] is not None:
        said = duration(planned["seconds"])
        yield Line(f"about {said} of one lane, as this study's trials went so far")
    columns = ("arm", "changes", "follows from it", "trained parameters", "epochs", "most epochs in all")
    yield from (Line(), Grid(columns, [[arm[name] for name in columns] for arm in planned["arms"]]), Line())
    yield from (Line(remark, "yellow") for remark in remarks)
    yield Line(f"files would go to {planned['folder']}; nothing was started")


def samples(spec: SweepSpec, most: int) -> list[dict[str, Any]]:
    """The first configurations that this sweep would try, with their trials' names."""
    proposer = Proposer(spec, samples=spec.samples)
    proposals = (p for p in iter(proposer.propose, None) if isinstance(p, Proposal))
    return [{"trial": p.trial, "seed": p.replicate, "params": p.params} for p in islice(proposals, most)]
