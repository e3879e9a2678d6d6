"""At which cost the arms of a study are compared: epochs for each, so that steps or compute are equal.

At equal epochs a method that passes every view through more networks looks better than it is. The epochs are
found once, before a study starts, and written into its spec, so that going on with it measures nothing again.
So is what a step of each arm costs, whatever the budget: every report shows it beside the scores.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from raykd.spec.study import StudySpec
from trainables.core.errors import UserError
from trainables.spec.trial import TrialSpec
from trainables.training.resolve import flatten


def with_epochs(spec: StudySpec, trials: Mapping[str, TrialSpec]) -> StudySpec:
    """The study with each arm's epochs under its budget; `trials` are its arms at the base's epochs.

    Equal compute counts the operations of a step on a few images. Raises `UserError` for a schedule that
    other epochs would tear apart.
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
    arms = {}
    for label, arm in spec.arms.items():
        epochs = base.epochs if label == spec.study.base else find(base, trials[label])
        arms[label] = arm.model_copy(update={"epochs": epochs})
    return spec.model_copy(update={"arms": arms})


def with_costs(spec: StudySpec) -> StudySpec:
    """The study with what a step of each arm costs and how many an epoch has.

    Counted on a few images, once for arms that do the same arithmetic: a second for small networks, ten or so
    for large ones on a CPU.
    """
    from trainables.planning.compute import epoch_steps, step_flops

    arms = {}
    counted: dict[tuple[Any, ...], float] = {}
    for label, arm in spec.arms.items():
        trial = spec.arm_trial(label)
        key = (arm.trained_parameters, *_arithmetic(trial))
        if key not in counted:
            counted[key] = step_flops(trial)
        arms[label] = arm.model_copy(update={"step_flops": counted[key], "epoch_steps": epoch_steps(trial)})
    return spec.model_copy(update={"arms": arms})


def _arithmetic(trial: TrialSpec) -> Iterator[tuple[str, Any]]:
    """What the products of a step hang on, beside the number of parameters: every choice, count and name.

    Of rates, weights and temperatures only whether they are 0, which can leave a term out.
    """
    for name, value in flatten(trial).items():
        if name not in ("seed", "epochs"):
            yield name, value != 0 if isinstance(value, float) else str(value)


def steps_of(trial: TrialSpec) -> int:
    """Optimizer steps of a trial; pictures that will not decode still count."""
    from trainables.planning.compute import epoch_steps

    return trial.epochs * epoch_steps(trial)


def _equal_steps(base: TrialSpec, arm: TrialSpec) -> int:
    return max(1, round(arm.epochs * steps_of(base) / steps_of(arm)))


def _equal_compute(base: TrialSpec, arm: TrialSpec) -> int:
    from trainables.planning.compute import equal_epochs

    return equal_epochs(base, arm)
