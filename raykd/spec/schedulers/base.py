"""What a scheduler offers: its settings, the epochs at which it decides, and how Tune's scheduler is made."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from pydantic import Field

from trainables.spec.trial import Spec

if TYPE_CHECKING:
    from ray.tune.schedulers import TrialScheduler

TIME, METRIC = "epoch", "score"  # the fields of a result that Tune's schedulers are given
JUDGED: dict[str, Any] = {"time_attr": TIME, "metric": METRIC, "mode": "max"}  # their arguments for these


class SchedulerSpec(Spec, ABC):
    """What stops weak trials early, by their scores. Budgets are epochs, and higher scores are better.

    The fields are the settings under `scheduler` in the sweep's file. A setting that only other schedulers
    have is refused.
    """

    name: str
    stop_field: ClassVar[str] = "grace"  # the setting that `first_stop` comes from, for messages

    @property
    @abstractmethod
    def first_stop(self) -> int | None:
        """The first epoch after which a trial may be stopped; None: every trial trains to its last epoch.

        A trial whose score is not finite is stopped from this epoch on.
        """

    def rungs(self, epochs: int) -> list[int]:
        """The epochs before the last one at which trials are compared, for the report's audit of the score.

        Of a scheduler that decides after every epoch, and of one that never stops a trial, these are the
        epochs at which successive halving would decide.
        """
        return milestones(self.first_stop or 1, 2.0, epochs)

    def stops(self, epochs: int) -> list[tuple[int, float]]:
        """(epoch, share of all trials that are stopped after it), as far as that is known beforehand.

        Of a scheduler without a share of its own these are the shares of halving.
        """
        return shares_at(self.rungs(epochs), 2.0) if self.first_stop is not None else []

    @abstractmethod
    def make(self, epochs: int) -> list[TrialScheduler]:
        """Tune's schedulers for trials of `epochs` epochs; trials are dealt out to them in turn.

        raykd calls `on_trial_add` once a trial, and `on_trial_result` for each report before the last epoch.
        A trial has a `trial_id`; a result has the epoch under `TIME` and the finite score under `METRIC`,
        which is to be maximised. On resume the recorded reports are replayed into new schedulers. Import Ray
        in here: a sweep's file is read without it.
        """


class StoppingScheduler(SchedulerSpec, ABC):
    """A scheduler that stops trials."""

    grace: Annotated[int, Field(ge=1)] = Field(1, description="epochs before a trial may be stopped")

    @property
    def first_stop(self) -> int | None:
        """The first epoch after which a trial may be stopped."""
        return self.grace


def milestones(first: int, factor: float, epochs: int) -> list[int]:
    """Epochs below `epochs`: `first` and each `factor` times the one before, rounded up, each once.

    The scheduler decides after the first epoch at or past such a number, which need not be whole.
    """
    found, at = [], float(first)
    while at < epochs:
        found.append(math.ceil(at - 1e-9))
        at *= factor
    return [epoch for epoch in dict.fromkeys(found) if epoch < epochs]


def shares_at(rungs: list[int], factor: float) -> list[tuple[int, float]]:
    """(rung, share of all trials that end there), if at each rung one trial in `factor` goes on."""
    return [(rung, factor**-at * (1 - 1 / factor)) for at, rung in enumerate(rungs)]
