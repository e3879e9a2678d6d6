"""Isolation of trials: a process trains hundreds of them, and each must start from the same global state."""

from __future__ import annotations

import contextlib
import gc
import random
import sys
import traceback
from collections.abc import Iterator
from typing import Any, cast

import numpy as np
import torch

from trainables.core.precision import precision, set_precision
from trainables.core.workers import device


def rng_state() -> dict[str, Any]:
    """The state of every global random generator, for a checkpoint. Tensors: long tuples pickle slowly."""
    version, internal, gauss = random.getstate()
    kind, keys, *rest = cast(tuple[Any, ...], np.random.get_state(legacy=True))
    state: dict[str, Any] = {
        "python": (version, torch.tensor(internal), gauss),
        "numpy": (kind, torch.from_numpy(keys.astype(np.int64)), *rest),
        "torch": torch.get_rng_state(),
    }
    if device().type == "cuda":  # a process that trains on the CPU must not create a CUDA context
        state["cuda"] = torch.cuda.get_rng_state()
    return state


def set_rng_state(state: dict[str, Any]) -> None:
    """Restore the state that `rng_state` returned."""
    version, internal, gauss = state["python"]
    random.setstate((version, tuple(internal.tolist()), gauss))
    kind, keys, *rest = state["numpy"]
    np.random.set_state((kind, keys.numpy().astype(np.uint32), *rest))
    torch.set_rng_state(state["torch"])
    if "cuda" in state and device().type == "cuda":
        torch.cuda.set_rng_state(state["cuda"])


@contextlib.contextmanager
def isolated(seed: int) -> Iterator[None]:
    """Seed every global generator; at the end restore torch's global state and free the memory.

    The number of threads is the caller's choice and is only restored. After an exception the local variables
    of its frames are cleared, because the traceback would keep the models alive.
    """
    before = (rng_state(), _settings())
    gc.freeze()  # the collection below then looks only at the objects of this trial: 10 ms instead of 200
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)
    torch.set_grad_enabled(True)
    try:
        yield
    except BaseException:
        traceback.clear_frames(sys.exc_info()[2])
        raise
    finally:
        set_rng_state(before[0])
        _restore(before[1])
        gc.collect()
        gc.unfreeze()
        if device().type == "cuda":
            torch.cuda.empty_cache()


@contextlib.contextmanager
def tuned_kernels(where: torch.device) -> Iterator[None]:
    """Inside, cuDNN tries its kernels for each new shape and takes the fastest.

    For steps, whose shapes recur. Not where cuDNN was told to be deterministic. Changes nothing on a CPU.
    """
    cudnn = torch.backends.cudnn
    before = cudnn.benchmark
    if where.type == "cuda":
        cudnn.benchmark = before or not cudnn.deterministic
    try:
        yield
    finally:
        cudnn.benchmark = before


def _settings() -> dict[str, Any]:
    return {
        "grad": torch.is_grad_enabled(),
        "threads": torch.get_num_threads(),
        "dtype": torch.get_default_dtype(),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "warn_only": torch.is_deterministic_algorithms_warn_only_enabled(),
        "precision": precision(),
        "cudnn": (torch.backends.cudnn.benchmark, torch.backends.cudnn.deterministic),
    }


def _restore(settings: dict[str, Any]) -> None:
    torch.set_grad_enabled(settings["grad"])
    if torch.get_num_threads() != settings["threads"]:
        torch.set_num_threads(settings["threads"])
    torch.set_default_dtype(settings["dtype"])
    torch.use_deterministic_algorithms(settings["deterministic"], warn_only=settings["warn_only"])
    set_precision(settings["precision"])
    torch.backends.cudnn.benchmark, torch.backends.cudnn.deterministic = settings["cudnn"]
