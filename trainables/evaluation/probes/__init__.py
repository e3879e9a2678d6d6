"""Probes: quick tests of frozen features, which say how good a student is while it trains.

    probe("ridge_5shot", train_features, train_labels, val_features, val_labels)

A probe is a class of one of the files in this folder: how its number is computed, and what the number may be
used for. To add one, write a file with a `Probe`: it is found by itself, and so is one in a module of the
user's own (`trainables.core.plugins`). Nothing here imports torch before a probe is run, so that a sweep's
file is read quickly.
"""

from __future__ import annotations

import inspect
from functools import cache
from types import ModuleType
from typing import TYPE_CHECKING

from trainables.core import plugins
from trainables.core.discovery import added, by_name, classes
from trainables.core.errors import TrialFailed, UserError
from trainables.evaluation.probes.base import Features, Probe, ProbeResult

if TYPE_CHECKING:
    from torch import Tensor

    from trainables.data.data_sets import DataFacts
    from trainables.spec.trial import ProbeSpec


@cache
def _own() -> dict[str, type[Probe]]:
    found = classes(__name__, Probe)  # type: ignore[type-abstract]  # of which it returns those that are not
    return by_name(found, lambda kind: kind.label)


def probes() -> dict[str, type[Probe]]:
    """Every kind of probe by its name in lists, `ridge_Kshot` for every K; those of plug-ins last.

    Raises `UserError` for a plug-in that is wrong.
    """
    found = {module: added_by(module) for module in plugins.modules(plugins.PROBES)}
    return added(_own(), found, lambda kind: kind.label)


def added_by(module: ModuleType) -> list[type[Probe]]:
    """The probes of a plug-in: its classes below `Probe` that can be instantiated."""
    return [
        kind
        for kind in vars(module).values()
        if isinstance(kind, type)
        and issubclass(kind, Probe)
        and not inspect.isabstract(kind)
        and not plugins.is_own(kind.__module__)
    ]


def plugins_of(name: str) -> list[str]:
    """The modules outside of raykd that the probe called `name` comes from; [] for raykd's own."""
    probe = find_probe(name)
    if probe is None or plugins.is_own(type(probe).__module__):
        return []
    offering = (m for m in plugins.modules(plugins.PROBES) if type(probe) in added_by(m))
    return [*(module.__name__ for module in offering), type(probe).__module__]


def find_probe(name: object) -> Probe | None:
    """The probe called `name`; None if there is none."""
    if not isinstance(name, str):
        return None
    for kinds in (_own, probes):  # plug-ins are imported for their own probes alone
        for kind in kinds().values():
            if (found := kind.named(name)) is not None:
                return found
    return None


def load_probe(name: str, field: str = "probe") -> Probe:
    """The probe called `name`; `UserError` at `field` with the nearest name otherwise."""
    found = find_probe(name)
    if found is not None:
        return found
    if name in probes():  # `ridge_Kshot` itself
        raise UserError(field, "K has to be a number", value=name, expected="ridge_1shot or ridge_5shot, say")
    raise UserError(field, "no such probe", value=name, choices=probes())


def check_probe(spec: ProbeSpec, facts: DataFacts) -> None:
    """Raise `UserError` for a probe that is unknown, or that this data set has no or too few labels for."""
    for field, name in [("probe.score", spec.score), *(("probe.record", name) for name in spec.record)]:
        shots = load_probe(name, field).shots
        images = min(spec.max_images, facts.probe_images)
        if shots is not None and shots * facts.classes > images:
            most = images // facts.classes
            raise UserError(
                field,
                f"{shots} labels for each of {facts.classes} classes are more than there are images",
                value=name,
                expected=f"at most {most} a class" if most else "ridge or knn, which take what there is",
            )
    score, problem = load_probe(spec.score, "probe.score"), ""
    if not score.higher_is_better:
        problem = "a search maximises its score, and of this probe lower values are better"
        expected = f"another probe, with `record: [{spec.score}]`"
    elif not facts.classes and score.needs_labels:
        problem = "this data set has no labels to score with"
        expected = " or ".join(sorted(kind.label for kind in probes().values() if not kind.needs_labels))
    if problem:
        raise UserError("probe.score", problem, value=spec.score, expected=expected)


def names(spec: ProbeSpec, classes: int) -> tuple[str, ...]:
    """The score's probe, then those recorded beside it; of data without classes those that need no labels.

    `UserError` for an unknown probe.
    """
    wanted = dict.fromkeys((spec.score, *spec.record))
    return tuple(name for name in wanted if classes or not load_probe(name).needs_labels)


def probe(
    name: str,
    train_features: Tensor,
    train_labels: Tensor,
    val_features: Tensor,
    val_labels: Tensor,
    draws: int = 30,
    seed: int = 0,
) -> ProbeResult:
    """Score features (N, D) with labels (N,) on val_features (M, D) with val_labels (M,).

    A class that the training part lacks is never predicted. `seed` fixes the draws of a k-shot probe.
    `TrialFailed` for features that are not finite; `UserError` for an unknown probe, and for one that lacks
    labels.
    """
    import torch

    if not bool(torch.isfinite(train_features).all()) or not bool(torch.isfinite(val_features).all()):
        raise TrialFailed(f"probe {name}: the features hold values that are not finite")
    found = load_probe(name)
    if found.needs_labels and (not len(train_labels) or not len(val_labels)):
        raise UserError("probe", f"{name} needs labelled images for training and validation", value=name)
    return found.score(Features(train_features, train_labels, val_features, val_labels), draws, seed)
