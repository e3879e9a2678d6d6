"""What a search's budget buys on this machine: trials, epochs and rungs, from a few timed steps."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import islice
from statistics import fmean
from typing import Any, NamedTuple

from raykd.console.wording import counted, duration
from raykd.lanes.cluster import this_machine
from raykd.runs.auxiliary import BEFORE
from raykd.searching.proposer import Proposal, Proposer
from raykd.spec.budget_section import NAMES
from raykd.spec.schedulers.base import SchedulerSpec
from raykd.spec.search import SearchSpec
from trainables.spec.trial import TrialSpec

_TIMED = 3  # configurations, the first ones that would be tried


class Rung(NamedTuple):
    """How many trials are expected to train so far."""

    epoch: int
    trials: float


def buys(spec: SearchSpec, besides: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What the budget buys: `lane_seconds`, `trials`, `epochs`, `rungs`, and all of it in words as `lines`.

    `besides` are the trainings beside the trials, as `auxiliary.beside` counts them. A few steps of the first
    configurations are timed on this machine, as if it were idle.
    """
    budget = spec.spends
    assert budget is not None
    here = [this_machine()]
    workers = spec.workers.on(here)
    lane_s = budget.lane_seconds(workers)
    if not workers.lanes(here):
        said = "what the budget buys cannot be said: this machine cannot hold a lane of this search"
        return {"lane_seconds": lane_s, "trials": None, "epochs": None, "rungs": [], "lines": [said]}
    found = list(_first(spec))
    epoch_s = fmean(_epoch_seconds(spec, trial) for trial in found)
    lanes = min(workers.lanes(here), spec.lanes or spec.trials)
    # All lanes are there while one trains what must come before the trials.
    others = (row["trials"] * (lanes if row["when"] == BEFORE else 1) for row in besides)
    other_s = sum(others) * epoch_s * spec.epochs
    free_s = max(0.0, lane_s - other_s)
    survivors = surviving(spec.scheduler, spec.epochs)
    stopped = spec.scheduler.stops(spec.epochs)
    audited = spec.audited_share * sum(share * (spec.epochs - rung) for rung, share in stopped)
    each = sum(_epochs_each(survivors)) + audited
    bought = free_s / (epoch_s * each) if each else 0.0
    trials = min(bought, float(spec.trials))
    hours = " or ".join(f"{value:g} {NAMES[name]}" for name, value in budget.set.items())
    rungs = [Rung(epoch, share * trials) for epoch, share in survivors.items()]
    lines = [
        f"a budget of {hours}, {duration(lane_s)} of a lane, buys about {_about(bought)} here, "
        f"{_about(bought * each, 'epoch')} in all; {counted(spec.trials, 'trial')} are asked for",
        f"  timed on a few steps of {counted(len(found), 'configuration')}: {epoch_s:.2g} s an epoch",
    ]
    if len(rungs) > 1:
        reach = ", ".join(f"{rung.trials:.0f} to epoch {rung.epoch}" for rung in rungs)
        lines.append(
            f"  of these trials about {reach}, if {spec.scheduler.name} stops as many as it means to"
        )
    if other_s:
        lines.append(f"  about {duration(other_s)} of lanes go into what is trained besides")
    return {
        "lane_seconds": lane_s,
        "trials": bought,
        "epochs": bought * each,
        "rungs": [rung._asdict() for rung in rungs],
        "lines": lines,
    }


def surviving(scheduler: SchedulerSpec, epochs: int) -> dict[int, float]:
    """Epoch -> the share of trials that are expected to train so far: all to the first rung, then fewer."""
    shares, left = dict[int, float](), 1.0
    for rung, stopped in scheduler.stops(epochs):
        shares[rung] = left
        left -= stopped
    return {**shares, epochs: left}


def _epochs_each(survivors: Mapping[int, float]) -> Iterable[float]:
    """The epochs that a trial trains on average, rung by rung."""
    before = 0
    for rung, share in survivors.items():
        yield (rung - before) * share
        before = rung


def _first(spec: SearchSpec) -> Iterable[TrialSpec]:
    proposer = Proposer(spec, spec.samples)
    proposals = (p for p in iter(proposer.propose, None) if isinstance(p, Proposal))
    for proposal in islice(proposals, min(_TIMED, spec.samples)):
        yield spec.trial(proposal.params, proposal.replicate)


def _epoch_seconds(spec: SearchSpec, trial: TrialSpec) -> float:
    from trainables.planning.timing import measure

    kind = "cuda" if spec.workers.on([this_machine()]).gpus else "cpu"
    timing = measure(trial, spec.workers.count, max(1, int(spec.workers.cpus)), kind)
    return timing.of(trial) / trial.epochs


def _about(count: float, noun: str = "trial") -> str:
    return counted(int(float(f"{count:.2g}")), noun)
