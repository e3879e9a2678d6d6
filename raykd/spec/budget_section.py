"""The section of a search's file about the hours of GPUs and CPUs that it may spend."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BeforeValidator, Field

from raykd.spec.sections import WorkersSpec, parse_duration
from trainables.spec.trial import Spec

NAMES = {"gpu_hours": "GPU-hours", "cpu_hours": "CPU-hours"}


def parse_hours(raw: Any) -> Any:
    """Hours of `40h`, `2d`, `90m`, or of a number of hours. Raises `UserError` for other text."""
    return parse_duration(raw) / 3600 if isinstance(raw, str) else raw


Hours = Annotated[float, Field(gt=0, allow_inf_nan=False), BeforeValidator(parse_hours)]


class BudgetSpec(Spec):
    """What a sweep may spend in all: the hours of its lanes, times the GPUs or the CPUs of a lane."""

    gpu_hours: Hours | None = Field(None, description="such as 40, or 2d")
    cpu_hours: Hours | None = Field(None, description="likewise, of the CPUs that workers take")

    @property
    def set(self) -> dict[str, float]:
        """The limits that there are, in hours."""
        return {name: hours for name, hours in self if hours is not None}

    def lane_seconds(self, workers: WorkersSpec) -> float:
        """Seconds that lanes may be there in all, by the nearer limit. `workers` are a result of `on`."""
        per_lane = {
            "gpu_hours": workers.count * (workers.gpus or 0.0),
            "cpu_hours": workers.count * workers.cpus,
        }
        each = (3600 * hours / per_lane[name] for name, hours in self.set.items() if per_lane[name])
        return min(each, default=float("inf"))
