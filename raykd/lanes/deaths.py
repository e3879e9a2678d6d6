"""Why a worker's process died, from what Ray says of it. Imported where torch is not."""

from __future__ import annotations

from ray.exceptions import OutOfMemoryError, RayActorError

ADVICE = "a smaller optim.batch_size, network or image, or fewer lanes, may fit"


def death(error: Exception) -> str | None:
    """Why a worker process died, from the error that Ray gives; None if it raised something and lives."""
    cause = getattr(error, "health_check_failure", error)  # Ray Train wraps what it found
    if isinstance(cause, OutOfMemoryError) or "low on memory" in str(cause):
        return f"out of memory: Ray killed the worker before its host ran out; {ADVICE}"
    if not isinstance(cause, RayActorError):
        return None
    if "its node has died" in str(cause):
        return "its node has died"
    return f"its worker process was killed, as the kernel does where memory runs out: {ADVICE}"
