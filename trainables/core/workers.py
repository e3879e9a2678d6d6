"""Communication between the workers of a trial; with one process each function is a plain call.

A worker that fails alone leaves the others waiting in a collective for ever. So work that one worker does for
all goes through `from_first`, which raises its error on every worker.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, TypeVar

import torch
import torch.distributed as dist

from trainables.core.errors import is_picklable

T = TypeVar("T")
_alone: ContextVar[bool] = ContextVar("alone", default=False)
_given: list[torch.device] = []  # the device given to `use_device`


def world_size() -> int:
    """The number of workers; 1 without a process group and inside a function that `from_first` calls."""
    grouped = dist.is_available() and dist.is_initialized() and not _alone.get()
    return dist.get_world_size() if grouped else 1


def rank() -> int:
    """This worker's number, from 0."""
    return dist.get_rank() if dist.is_available() and dist.is_initialized() else 0


def use_device(where: torch.device) -> None:
    """Train on device `where` in this process from now on. For an engine that assigns devices to workers."""
    if where.type == "cuda":
        torch.cuda.set_device(where)
    _given[:] = [where]


@contextmanager
def on_device(where: torch.device) -> Iterator[None]:
    """`use_device` for as long as the block runs."""
    before = list(_given)
    use_device(where)
    try:
        yield
    finally:
        _given[:] = before


def device() -> torch.device:
    """The device given to `use_device`; else torch's current GPU, or the CPU where there is none."""
    if _given:
        return _given[0]
    if torch.cuda.is_available():
        return torch.device("cuda", torch.cuda.current_device())
    return torch.device("cpu")


def from_first(make: Callable[[], T]) -> T:
    """Call `make` on the first worker; return its result, or raise its error, on every worker.

    Inside `make` `world_size()` is 1: the others do not take part.
    """
    if world_size() == 1:
        return make()
    said: list[Any] = [None, None]
    own: Exception | None = None
    if rank() == 0:
        token = _alone.set(True)
        try:
            said[0] = make()
        except Exception as error:
            own, said[1] = error, _sendable(error)
        finally:
            _alone.reset(token)
    dist.broadcast_object_list(said, src=0)
    if said[1] is not None:
        raise own or _from_a_peer(said[1])
    result: T = said[0]
    return result


def on_each(make: Callable[[], T]) -> T:
    """Call `make` on every worker and return this worker's result; an error of one is raised on all.

    For work on data that each node has for itself, such as decoded images.
    """
    error: Exception | None = None
    try:
        made = make()
    except Exception as own:
        error = own
    errors = [found for found in from_each(error and _sendable(error)) if found is not None]
    if errors:
        raise error or _from_a_peer(errors[0])
    return made


def is_a_peers(error: BaseException) -> bool:
    """Whether another worker raised this error and this one only received it."""
    return getattr(error, "_raised_by_a_peer", False)


def _from_a_peer(error: Exception) -> Exception:
    error._raised_by_a_peer = True  # type: ignore[attr-defined]
    return error


def _sendable(error: Exception) -> Exception:
    """`error`, or a RuntimeError with its text where it cannot be pickled."""
    return error if is_picklable(error) else RuntimeError(f"{type(error).__name__}: {error}")


def from_each(value: T) -> list[T]:
    """The `value` of every worker, in the order of ranks."""
    if world_size() == 1:
        return [value]
    values: list[Any] = [None] * world_size()
    dist.all_gather_object(values, value)
    return values


def mean_over_workers(values: torch.Tensor) -> torch.Tensor:
    """The mean of each worker's `values`, without gradient."""
    if world_size() > 1:
        dist.all_reduce(values)
        values = values / world_size()
    return values
