"""Why a trial's worker failed: in words that say what to do, and whether its GPU is to blame."""

from __future__ import annotations

import os
import re
import socket

from raykd.lanes.deaths import ADVICE
from raykd.lanes.devices import allowed
from trainables.core.workers import device, is_a_peers
from trainables.data.store_images import StoreDamaged
from trainables.spec.trial import TrialSpec

_BYTES = re.compile(r"allocate (\d+) bytes|allocate ([\d.]+ [KMGTP]iB)")
_GPU = re.compile(r"(GPU \d+) has a total capacity of ([\d.]+ [KMGTP]iB)")
_SAID = (  # by the allocators of torch, CUDA, cuBLAS, cuDNN and the kernel
    "can't allocate memory",
    "CUDA out of memory",
    "CUDA error: out of memory",
    "ALLOC_FAILED",
    "ALLOCATION_FAILED",
    "Cannot allocate memory",
)
# What CUDA and its libraries say when a program is wrong. It fails alike on every GPU.
_PROGRAMS = (
    "device-side assert triggered",
    "invalid argument",
    "invalid configuration",
    "invalid device ordinal",
    "invalid resource handle",
    "too many resources requested",
    "operation not permitted",
    "STATUS_INVALID_VALUE",
    "STATUS_BAD_PARAM",
    "STATUS_NOT_SUPPORTED",
    "out of memory",
)
_CUDA = re.compile(
    r"CUDA (?:driver )?error: |HIP error: |Cuda failure|CUDA unknown error|GPU is lost|\bXid\b"
)
_LIBRARIES = re.compile(
    r"STATUS_(?:EXECUTION_FAILED|INTERNAL_ERROR|NOT_INITIALIZED|MAPPING_ERROR)|CUFFT_EXEC"
)
_SIZES = {"bytes": 1, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "TiB": 2**40}
_WORKSPACE = 2**28  # bytes that a library is taken to have asked for: it does not say
_HELD = re.compile(r"([\d.]+) (bytes|[KMGT]iB) is (?:allocated|reserved) by PyTorch")
_TRIED = re.compile(r"Tried to allocate ([\d.]+) (bytes|[KMGT]iB)")


def explain(error: Exception, trial: TrialSpec | None) -> str:
    """Why a trial failed, in one line; `error` is what it raised."""
    if not out_of_memory(error):
        return f"{type(error).__name__}: {error}".splitlines()[0]
    batch = f" with optim.batch_size {trial.optim.batch_size}" if trial is not None else ""
    return f"out of memory{batch}: {_asked(str(error))}{_where(str(error))}; {ADVICE}"


def out_of_memory(error: Exception) -> bool:
    """Whether the error says that memory was exhausted, of the host or of a GPU."""
    import torch

    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True
    return isinstance(error, (RuntimeError, OSError)) and any(said in str(error) for said in _SAID)


def beside_others(error: Exception, share: float) -> bool:
    """Whether memory of a GPU that lanes share was exhausted: alone there the task may fit."""
    if not 0 < share < 1 or not isinstance(error, RuntimeError) or not out_of_memory(error):
        return False
    return type(error).__name__ == "OutOfMemoryError" or "CU" in str(error)  # and not the host's memory


def mended_by_restart(error: Exception) -> bool:
    """Whether the error may not come again if the group of workers is started again.

    A rank may have raised it because another one died: torch's collectives raise RuntimeErrors. Damaged
    images are decoded again. Any other error is the trial's own, and would come again.
    """
    return isinstance(error, (RuntimeError, OSError, StoreDamaged)) and not out_of_memory(error)


def gpu_fault(error: Exception, share: float, alone: int = 0) -> str | None:
    """Why this worker's GPU is to blame for the error, in one line; None if it is not.

    The GPU is blamed for errors of CUDA: an illegal memory access, ECC, a lost device, or a library that
    fails after one of these. It is not blamed for those of a wrong program: a failed assertion, which labels
    out of range cause, or invalid arguments. It is blamed, too, if memory is exhausted because other
    processes hold it: `share` is how much of the GPU this worker may use, `alone` as in `devices.allowed`.
    """
    if not isinstance(error, RuntimeError) or is_a_peers(error):
        return None
    if out_of_memory(error):
        return _held_by_others(str(error), share, alone)
    said = _said_by_cuda(str(error))
    if not said:
        return None
    said += _said_by_cuda(_context_error())  # a library does not repeat the first error
    if any(word in line for word in _PROGRAMS for line in said):
        return None
    return f"{type(error).__name__}: {error}".splitlines()[0]


def _said_by_cuda(text: str) -> list[str]:
    """The lines of the text that say what went wrong; others are torch's advice."""
    return [line for line in text.splitlines() if _CUDA.search(line) or _LIBRARIES.search(line)]


def _context_error() -> str:
    """CUDA's error if this process's context is lost, else "". Such an error comes again with every call.

    The call does not wait for the device: if another rank is gone, work on the device may never end.
    """
    import torch

    if not torch.cuda.is_initialized():
        return ""
    try:
        torch.cuda.current_stream().query()
    except RuntimeError as error:
        return str(error)
    return ""


def _held_by_others(said: str, share: float, alone: int) -> str | None:
    """Why memory was exhausted although this process had less than its share; None if it had its share."""
    import torch

    where, tried = device(), _TRIED.search(said)
    if where.type != "cuda":
        return None
    asked = float(tried[1]) * _SIZES[tried[2]] if tried is not None else _WORKSPACE
    free, total = torch.cuda.mem_get_info(where)
    # Not what is reserved now: a trial gives that back before its error comes here.
    own = _own(said) or torch.cuda.max_memory_reserved(where)
    if own + asked > allowed(share, total, alone):
        return None
    others = max(0, total - free - torch.cuda.memory_reserved(where))
    return f"other processes hold {others / 2**30:.1f} of its {total / 2**30:.1f} GiB"


def _own(said: str) -> float:
    """Bytes that torch held in this process, by the words of its error; 0 if that is a library's."""
    return sum(float(number) * _SIZES[unit] for number, unit in _HELD.findall(said))


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
