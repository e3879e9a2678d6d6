"""The budget of a study: epochs for each arm, so that epochs, optimizer steps or compute are equal.

At equal epochs a method that passes every view through more networks looks better than it is. The epochs are
computed once, before a study starts, and recorded in its spec. The cost of a step of each arm is recorded
too, for every budget: every report shows it beside the scores.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from raykd.spec.study import StudySpec
from trainables.core.errors import UserError
from trainables.spec.trial import TrialSpec
from trainables.training.flat_names import flatten


def with_epochs(spec: StudySpec, trials: Mapping[str, TrialSpec]) -> StudySpec:
    """The study with each arm's epochs under its budget; `trials` are its arms at the base's epochs.

    Equal compute counts the operations of a step on a few images. Raises `UserError` for a schedule that
    decays at fixed epochs, which does not fit another number of epochs.
    """
    if spec.study.budget == "epochs":
        return spec
    for label, trial in trials.items():
        if trial.optim.decay_epochs:
            raise UserError(
                "budget",
                f"{spec.study.budget!r} changes the epochs of arms, and arm {label!r} decays at fixed ones",
                value=list(trial.optim.decay_epochs),
                expected="`schedule: cosine`, or `budget: epochs`",
            )
    base = trials[spec.study.base]
    find = _equal_steps if spec.study.budget == "steps" else _equal_compute
    epochs = {
        label: base.epochs if label == spec.study.base else find(base, trials[label]) for label in spec.arms
    }
    return spec.with_arms({label: {"epochs": count} for label, count in epochs.items()})


def with_costs(spec: StudySpec) -> StudySpec:
    """The study with the operations of a step of each arm, and the steps of an epoch.

    Operations are counted on a few images, once for arms that do the same arithmetic. That takes a second for
    small networks and about ten for large ones on a CPU.
    """
    from trainables.planning.compute import epoch_steps, step_flops

    costs = {}
    counted: dict[tuple[Any, ...], float] = {}
    for label, arm in spec.arms.items():
        trial = spec.arm_trial(label)
        key = (arm.trained_parameters, *_arithmetic(trial))
        if key not in counted:
            counted[key] = step_flops(trial)
        costs[label] = {"step_flops": counted[key], "epoch_steps": epoch_steps(trial)}
    return spec.with_arms(costs)


def _arithmetic(trial: TrialSpec) -> Iterator[tuple[str, Any]]:
    """What determines the operations of a step, beside the number of parameters: every choice, count and
    name.

    Of rates, weights and temperatures only whether they are 0 matters, because a 0 can leave a term out.
    """
    for name, value in flatten(trial).items():
        if name not in ("seed", "epochs"):
            yield name, value != 0 if isinstance(value, float) else str(value)


def steps_of(trial: TrialSpec) -> int:
    """Optimizer steps of a trial; images that cannot be decoded count too."""
    from trainables.planning.compute import epoch_steps

    return trial.epochs * epoch_steps(trial)


def _equal_steps(base: TrialSpec, arm: TrialSpec) -> int:
    """The epochs of `arm` that have as many optimizer steps as the base, at least 1."""
    return max(1, round(arm.epochs * steps_of(base) / steps_of(arm)))


def _equal_compute(base: TrialSpec, arm: TrialSpec) -> int:
    """The epochs of `arm` that take as many operations as the base."""
    from trainables.planning.compute import equal_epochs

    return equal_epochs(base, arm)
