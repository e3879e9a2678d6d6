"""What killed a trial's worker, or made it fail, in words that say what to do."""

from __future__ import annotations

import os
import re
import socket

from ray.exceptions import OutOfMemoryError, RayActorError

from trainables.trial import TrialSpec

_ADVICE = "a smaller optim.batch_size, network or image, or fewer lanes, may fit"
_BYTES = re.compile(r"allocate (\d+) bytes|allocate ([\d.]+ [KMGTP]iB)")
_GPU = re.compile(r"(GPU \d+) has a total capacity of ([\d.]+ [KMGTP]iB)")
_SAID = (  # by the allocators of torch, CUDA, cuBLAS, cuDNN and the kernel
    "can't allocate memory",
    "CUDA out of memory",
    "CUDA error: out of memory",
    "ALLOC_FAILED",
    "Cannot allocate memory",
)


def explain(error: Exception, trial: TrialSpec | None) -> str:
    """Why a trial failed, from what it raised: one line."""
    if not out_of_memory(error):
        return f"{type(error).__name__}: {error}".splitlines()[0]
    batch = f" with optim.batch_size {trial.optim.batch_size}" if trial is not None else ""
    return f"out of memory{batch}: {_asked(str(error))}{_where(str(error))}; {_ADVICE}"


def out_of_memory(error: Exception) -> bool:
    """Whether it asked for more memory than there is, of the host or of a GPU."""
    import torch

    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True
    return isinstance(error, (RuntimeError, OSError)) and any(said in str(error) for said in _SAID)


def may_be_a_peers(error: Exception) -> bool:
    """Whether a rank may have raised this because another one died: torch's collectives raise RuntimeErrors.

    Anything else is this rank's own, and would come again.
    """
    return isinstance(error, (RuntimeError, OSError)) and not out_of_memory(error)


def death(error: Exception) -> str | None:
    """Why a worker process is gone, from what Ray knows of it; None if it raised something and lives."""
    cause = getattr(error, "health_check_failure", error)  # Ray Train wraps what it found
    if isinstance(cause, OutOfMemoryError) or "low on memory" in str(cause):
        return f"out of memory: Ray killed the worker before its host ran out; {_ADVICE}"
    if not isinstance(cause, RayActorError):
        return None
    if "its node has died" in str(cause):
        return "its node has died"
    return f"its worker process was killed, as the kernel does where memory runs out: {_ADVICE}"


def _asked(text: str) -> str:
    found = _BYTES.search(text)
    if found is None:
        return "it asked for more than there is"
    return f"it asked for {f'{int(found[1]) / 2**30:.1f} GiB' if found[1] else found[2]} more"


def _where(text: str) -> str:
    if found := _GPU.search(text):
        return f" on {found[1]}, which has {found[2]}"
    if "CU" in text:  # CUDA's libraries say no more
        return " on its GPU"
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return f" on {socket.gethostname()}, which has {total / 2**30:.0f} GiB"
