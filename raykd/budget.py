"""At which cost the arms of a study are compared: epochs for each, so that steps or compute are equal.

At equal epochs a method that passes every view through more networks looks better than it is. The epochs are
found once, before a study starts, and written into its spec, so that going on with it measures nothing again.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from raykd.spec import SweepSpec
from trainables.errors import UserError
from trainables.trial import TrialSpec


def with_epochs(spec: SweepSpec, trials: Mapping[str, TrialSpec], storage: Path) -> SweepSpec:
    """The study with each arm's epochs under its budget; `trials` are its arms at the base's epochs.

    Equal compute counts the operations of a step on a few images, and decodes the data on this machine if
    that was not done yet. Raises `UserError` for a schedule that other epochs would tear apart.
    """
    assert spec.study is not None
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
        epochs = base.epochs if label == spec.study.base else find(base, trials[label], storage)
        arms[label] = arm.model_copy(update={"epochs": epochs})
    return spec.model_copy(update={"arms": arms})


def steps_of(trial: TrialSpec) -> int:
    """Optimizer steps of a trial; pictures that will not decode still count."""
    from trainables.data import check_data

    return trial.epochs * (check_data(trial.data).train_images // trial.optim.batch_size)


def _equal_steps(base: TrialSpec, arm: TrialSpec, storage: Path) -> int:
    return max(1, round(arm.epochs * steps_of(base) / steps_of(arm)))


def _equal_compute(base: TrialSpec, arm: TrialSpec, storage: Path) -> int:
    from trainables.compute import equal_epochs
    from trainables.data import cache_folder
    from trainables.loop import Workspace

    workspace = Workspace(storage / ".teachers", cache_folder(), (storage / ".teachers").resolve())
    return equal_epochs(base, arm, workspace)
