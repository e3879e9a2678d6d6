"""A student that does not change: it has no gradient, and checkpoints leave it out."""

from __future__ import annotations

from typing import Any

from trainables.methods.base import Method


def freeze_student(method: Method) -> None:
    """Freeze the student of `method`, whose `train` has to keep it in eval mode."""
    method.student.requires_grad_(False)
    method.register_state_dict_post_hook(_without_student)  # type: ignore[no-untyped-call]
    method.register_load_state_dict_pre_hook(_with_student)  # type: ignore[no-untyped-call]


def _without_student(method: Method, state: dict[str, Any], prefix: str, _metadata: object) -> None:
    # It never changes, and a checkpoint of each epoch would hold it once more.
    for name in [name for name in state if name.startswith(f"{prefix}student.")]:
        del state[name]


def _with_student(method: Method, state: dict[str, Any], prefix: str, *_: object) -> None:
    state |= {f"{prefix}student.{name}": value for name, value in method.student.state_dict().items()}
