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


def with_epochs(
    spec: SweepSpec, trials: Mapping[str, TrialSpec], storage: Path, absent: bool = False
) -> SweepSpec:
    """The study with each arm's epochs under its budget; `trials` are its arms at the base's epochs.

    With `absent`, equal steps are found from the published size of data that are not here.

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
    arms = {}
    for label, arm in spec.arms.items():
        if label == spec.study.base:
            epochs = base.epochs
        elif spec.study.budget == "steps":
            epochs = max(
                1, round(trials[label].epochs * steps_of(base, absent) / steps_of(trials[label], absent))
            )
        else:
            epochs = _equal_compute(base, trials[label], storage)
        arms[label] = arm.model_copy(update={"epochs": epochs})
    return spec.model_copy(update={"arms": arms})


def steps_of(trial: TrialSpec, absent: bool = False) -> int:
    """Optimizer steps of a trial; pictures that will not decode still count, as those that are `absent`."""
    from trainables.data import check_data

    return trial.epochs * (check_data(trial.data, absent).train_images // trial.optim.batch_size)


def _equal_compute(base: TrialSpec, arm: TrialSpec, storage: Path) -> int:
    from trainables.compute import equal_epochs
    from trainables.data import cache_folder
    from trainables.loop import Workspace

    workspace = Workspace(storage / ".teachers", cache_folder(), (storage / ".teachers").resolve())
    return equal_epochs(base, arm, workspace)
