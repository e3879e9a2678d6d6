"""Reading what a checkpoint holds."""

from __future__ import annotations

from pathlib import Path

from trainables.teachers.pretrained.read import CheckpointFacts, read_checkpoint


def inspect_checkpoint(path: Path) -> CheckpointFacts:
    """A file's origin, roles, head and hash. Raises `UserError` if it cannot be read."""
    return read_checkpoint(path, "teacher.checkpoint").facts
