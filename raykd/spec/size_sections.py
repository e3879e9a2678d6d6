"""Sections of a sweep's file about the size and the speed of its students."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from trainables.spec.trial import Spec, TrialSpec, digest


class LatencySpec(Spec):
    """How the time of a student's forward pass is measured, once for each student."""

    device: Literal["cpu", "gpu"] = Field("cpu", description="cpu, or gpu: the one of a lane's first worker")
    batch: Annotated[int, Field(ge=1, le=4096)] = Field(1, description="images that are passed together")
    threads: Annotated[int, Field(ge=1, le=1024)] = Field(1, description="CPU threads that compute")


def student_key(trial: TrialSpec) -> str:
    """8 hex digits of what sets the size of a trial's student: architecture, options, image size."""
    model = trial.student.model.model_dump(mode="json")
    return digest({**model, "image_size": trial.data.image_size})


def student_label(trial: TrialSpec) -> str:
    """The architecture with its options, for people."""
    options = ", ".join(f"{name} {value}" for name, value in trial.student.options.items())
    return trial.student.arch + (f" ({options})" if options else "")
