"""The median stopping rule (Golovin et al. 2017, Google Vizier)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from raykd.spec.schedulers.base import JUDGED, StoppingScheduler

if TYPE_CHECKING:
    from ray.tune.schedulers import TrialScheduler


class Median(StoppingScheduler):
    """Stops a trial whose best score lies below the median of the others' mean scores so far."""

    name: Literal["median"] = "median"
    min_samples: Annotated[int, Field(ge=1)] = Field(3, description="trials that make a median")

    def make(self, epochs: int) -> list[TrialScheduler]:
        """One of Tune's schedulers."""
        from ray.tune.schedulers import MedianStoppingRule

        return [
            MedianStoppingRule(
                grace_period=self.grace, min_samples_required=self.min_samples, min_time_slice=0, **JUDGED
            )
        ]
