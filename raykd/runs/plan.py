"""The plan of a search, for `raykd run --dry-run`: what it would do. `study_plan.py` is for studies."""

from __future__ import annotations

from dataclasses import asdict
from itertools import islice
from typing import Any

from raykd.console.wording import counted
from raykd.lanes import capacity, cluster
from raykd.lanes.own_ray import temporary_folder
from raykd.records.earlier import Earlier
from raykd.runs import warm_start
from raykd.runs.auxiliary import baseline_remarks, beside, whole_trials
from raykd.runs.budget import check_measures
from raykd.runs.sharing import sharing
from raykd.searching.proposer import Proposal, Proposer
from raykd.spec.devices import idle_gpus, where
from raykd.spec.plugins import code_of
from raykd.spec.search import SearchSpec
from raykd.spec.sweep import SweepSpec
from raykd.spec.validate import check_resources, describe_axes
from raykd.storage.base import SweepFolder
from trainables.core.errors import UserError
from trainables.core.files import cache_folder
from trainables.core.limits import cpus

_SHOWN = 3


def plan(spec: SearchSpec, sweep: SweepFolder) -> dict[str, Any]:
    """Axes, number of trials, largest cost, first configurations, and where files would go.

    `most_trials` is the largest cost of all that is trained, in whole trials like the first one;
    `warm_start` what becomes of earlier sweeps' trials. Raises `UserError` for one that is not there.
    """
    besides = beside(spec, sweep.storage)
    earlier = warm_start.earlier(spec, sweep)
    return {
        "name": spec.name,
        "methods": list(spec.methods),
        "data": data_of(spec),
        "axes": [list(row) for row in describe_axes(spec)],
        "trials": spec.trials,
        "most_epochs": spec.trials * spec.epochs,
        "beside": besides,
        "most_trials": whole_trials(spec) + sum(row["trials"] for row in besides),
        "scheduler": spec.scheduler.model_dump(mode="json"),
        "audit": audit_cost(spec),
        "sampler": spec.sampler.model_dump(mode="json"),
        "workers": spec.workers.model_dump(mode="json"),
        "targets": sharing(spec),
        "warm_start": [] if earlier is None else [asdict(row) for row in earlier.rows],
        "samples": samples(spec, _SHOWN, earlier),
        "folder": str(sweep),
        "tensorboard": str(sweep.path / "tensorboard"),
        "log": str(sweep.path / "log.txt"),
    }


def audit_cost(spec: SearchSpec) -> dict[str, Any] | None:
    """What `proxy.audit` adds to a search, if trials are stopped in the shares that the scheduler aims at.

    `trials` is how many of the stopped ones run on, `epochs` what they train beyond their stops, and `of` the
    epochs of the search without an audit: expected numbers. None without an audit.
    """
    if not spec.audited_share:
        return None
    stops = spec.scheduler.stops(spec.epochs)
    saved = spec.trials * sum(share * (spec.epochs - rung) for rung, share in stops)
    return {
        "share": spec.audited_share,
        "trials": spec.audited_share * spec.trials * sum(share for _, share in stops),
        "epochs": spec.audited_share * saved,
        "of": spec.trials * spec.epochs - saved,
    }


def data_of(spec: SweepSpec) -> dict[str, Any]:
    """How the files of the sweep's data set are understood; `lines` holds it in words.

    Raises `UserError` if the data set is not on this machine.
    """
    from trainables.data.summary import tell_data

    return tell_data(next(iter(spec.trial_of_each())).data, cache_folder())


def worker_memory(spec: SweepSpec, address: str | None) -> int | None:
    """Bytes of memory that each worker would have on this machine's device; None for a cluster."""
    import torch

    from trainables.training.memory import device_memory

    if cluster.ray_address(address) != cluster.LOCAL:
        return None
    gpus = spec.workers.on([cluster.this_machine()]).gpus
    if gpus and torch.cuda.is_available():
        return int(device_memory(torch.device("cuda", 0)) * min(gpus, 1.0))
    return device_memory(torch.device("cpu")) // spec.workers.count


def planned_here(planned: dict[str, Any], spec: SweepSpec, address: str | None) -> list[str]:
    """Add devices and lanes of this machine to a plan. Returns remarks on these and on a long baseline."""
    _check_plugins(spec, address)
    if cluster.ray_address(address) == cluster.LOCAL:
        check_measures(spec, spec.workers, [cluster.this_machine()])
    planned["devices"], idle = devices(spec, address)
    planned["room"], none = room(spec, address)
    if isinstance(spec, SearchSpec) and spec.spends is not None:
        planned["budget"] = _budget(spec, planned["beside"], address)
    baseline = [row for row in planned["beside"] if row["what"] == "baseline"]
    return [
        *idle,
        *none,
        *(said for row in baseline for said in baseline_remarks(row["asked"], row["epochs"], spec)),
    ]


def _budget(spec: SearchSpec, besides: list[dict[str, Any]], address: str | None) -> dict[str, Any]:
    """What the budget buys on this machine; a cluster's speed is not known."""
    from raykd.runs.budget_forecast import buys

    if cluster.ray_address(address) == cluster.LOCAL:
        return buys(spec, besides)
    return {"lines": ["what the budget buys on a cluster is not known before it has run there"]}


def _check_plugins(spec: SweepSpec, address: str | None) -> None:
    """Raise `UserError` with the names of a cluster's nodes that lack the user's own code.

    The cluster is asked only if the sweep takes something from outside of raykd.
    """
    target, code = cluster.ray_address(address), code_of(spec)
    if code and target != cluster.LOCAL:
        from raykd.lanes.plugin_nodes import check_nodes

        with cluster.connected(target):
            check_nodes(code)


def devices(spec: SweepSpec, address: str | None) -> tuple[str, list[str]]:
    """The device that workers would train on, in words; and remarks.

    Remarks tell that this machine cannot hold a lane, or has GPUs that no worker would use. A cluster is not
    asked: a plan can be made without it.
    """
    if cluster.ray_address(address) != cluster.LOCAL:
        if spec.workers.gpus is None:
            return "each worker on a GPU of its own if the cluster has GPUs, else on the CPU", []
        return where(spec.workers, []), []
    here = [cluster.this_machine()]
    remarks = idle_gpus(spec.workers, here)
    try:
        check_resources(spec.workers, here)
    except UserError as error:
        remarks.append(f"it cannot run on this machine: {error}")
    return where(spec.workers, here), remarks


def room(spec: SweepSpec, address: str | None) -> tuple[str, list[str]]:
    """How many lanes this machine holds and what limits them, in words; and remarks where it holds none.

    Both are empty for a cluster, and where even the workers do not fit, of which `devices` remarks.
    """
    if cluster.ray_address(address) != cluster.LOCAL or not (
        held := spec.workers.lanes([cluster.this_machine()])
    ):
        return "", []
    try:
        memory = capacity.room(spec.workers)
        temporary_folder()
    except UserError as error:
        return "", [f"it cannot run on this machine: {error}"]
    usable = cpus()
    has = f"{counted(int(usable.value), 'CPU')} ({usable.source}), memory {memory.said}"
    most = min(memory.lanes, held)
    if spec.lanes is not None and spec.lanes < most:
        return f"{counted(spec.lanes, 'lane')}, as `lanes` says; this machine can hold {most}: {has}", []
    return f"at most {counted(most, 'lane')} here: {has}", []


def samples(spec: SearchSpec, most: int, earlier: Earlier | None = None) -> list[dict[str, Any]]:
    """The first configurations that this sweep would try, at most `most`, with their trials' signatures.

    `origin` says what proposes each: `point`, `preset` (a method's own settings), `sampler` or `grid`.
    """
    proposer = Proposer(spec, spec.samples, earlier)
    proposals = (p for p in iter(proposer.propose, None) if isinstance(p, Proposal))
    return [
        {"trial": p.trial, "seed": p.replicate, "params": p.params, "origin": p.origin, "size": p.size}
        for p in islice(proposals, most)
    ]
