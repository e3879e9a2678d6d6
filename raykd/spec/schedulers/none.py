"""No early stopping."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from raykd.spec.schedulers.base import SchedulerSpec

if TYPE_CHECKING:
    from ray.tune.schedulers import TrialScheduler


class NoScheduler(SchedulerSpec):
    """Every trial trains to its last epoch."""

    name: Literal["none"] = "none"

    @property
    def first_stop(self) -> None:
        """Never."""
        return None

    def make(self, epochs: int) -> list[TrialScheduler]:
        """One of Tune's schedulers, which stops nothing."""
        from ray.tune.schedulers import FIFOScheduler

        return [FIFOScheduler()]
