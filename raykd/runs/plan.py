"""What a sweep would do, for `run --dry-run`: said before anything is spent; `study_plan.py` of a study."""

from __future__ import annotations

from itertools import islice
from pathlib import Path
from typing import Any

from raykd.search.proposer import Proposal, Proposer
from raykd.spec.arms import ARM
from raykd.spec.sweep import SweepSpec
from raykd.spec.validate import check_resources, describe_axes
from raykd.storage.folders import named
from trainables.errors import UserError
from trainables.files import cache_folder

_SHOWN = 3


def plan(spec: SweepSpec, folder: Path) -> dict[str, Any]:
    """Axes, number of trials, largest cost in epochs, sampled configurations, and where files would go."""
    return {
        "name": spec.name,
        "methods": list(spec.methods),
        "data": data_of(spec),
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


def data_of(spec: SweepSpec) -> dict[str, Any]:
    """What the files of the sweep's data set are taken for; as `lines`, what is said of it before a run.

    `UserError` if the data set is not here.
    """
    from trainables.data_words import tell_data

    params = {ARM: spec.study.base} if spec.study is not None else spec.space.around({})
    return tell_data(spec.trial(params, spec.seeds[0]).data, cache_folder())


def no_room(spec: SweepSpec, address: str | None) -> list[str]:
    """A remark where this machine cannot hold a lane; none of a cluster: a plan may be made elsewhere."""
    from raykd.lanes.cluster import LOCAL, ray_address, this_machine

    if ray_address(address) != LOCAL:
        return []
    try:
        check_resources(spec.workers, [this_machine()])
    except UserError as error:
        return [f"it cannot run on this machine: {error}"]
    return []


def samples(spec: SweepSpec, most: int) -> list[dict[str, Any]]:
    """The first configurations that this sweep would try, with their trials' names."""
    proposer = Proposer(spec, samples=spec.samples)
    proposals = (p for p in iter(proposer.propose, None) if isinstance(p, Proposal))
    return [{"trial": p.trial, "seed": p.replicate, "params": p.params} for p in islice(proposals, most)]
