"""What the training loop sends between workers. With one process each function is a plain call.

If a worker failed alone, the others would wait in a collective for ever. So what one worker does for all goes
through `from_first`, which also sends an error to all workers.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, TypeVar

import torch
import torch.distributed as dist

T = TypeVar("T")
_alone: ContextVar[bool] = ContextVar("alone", default=False)
_given: list[torch.device] = []  # what `use_device` said last


def world_size() -> int:
    """Number of workers; 1 without a process group, or in what `from_first` calls."""
    grouped = dist.is_available() and dist.is_initialized() and not _alone.get()
    return dist.get_world_size() if grouped else 1


def rank() -> int:
    """This worker's number, from 0."""
    return dist.get_rank() if dist.is_available() and dist.is_initialized() else 0


def use_device(where: torch.device) -> None:
    """From now on this process trains there: an engine that gives out devices says which one is whose."""
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
    """The device that `use_device` named; without it torch's current GPU, or the CPU where there is none."""
    if _given:
        return _given[0]
    if torch.cuda.is_available():
        return torch.device("cuda", torch.cuda.current_device())
    return torch.device("cpu")


def from_first(make: Callable[[], T]) -> T:
    """What `make` returns on the first worker, on every worker; what it raises there, likewise.

    Inside `make` there is one worker: the others are not there to gather from.
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
    """What `make` returns on this worker, once it has worked on all; an error of one is an error of all.

    For work on what each node has of its own, such as decoded data.
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
    """Whether another worker raised this, and this one was only told of it."""
    return getattr(error, "_raised_by_a_peer", False)


def _from_a_peer(error: Exception) -> Exception:
    error._raised_by_a_peer = True  # type: ignore[attr-defined]
    return error


def _sendable(error: Exception) -> Exception:
    """`error`, or a `RuntimeError` with its text if it cannot be pickled: other workers wait for it."""
    try:
        pickle.loads(pickle.dumps(error))
        return error
    except Exception:
        return RuntimeError(f"{type(error).__name__}: {error}")


def from_each(value: T) -> list[T]:
    """Every worker's `value`, by rank."""
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
