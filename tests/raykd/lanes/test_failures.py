"""Reasons for a trial's failure, from what torch, NumPy, the kernel and Ray really say."""

from __future__ import annotations

import errno
import os
import re

import numpy as np
import pytest
import torch
from ray.exceptions import ActorDiedError, OutOfMemoryError
from ray.train.v2._internal.exceptions import WorkerHealthCheckFailedError

from raykd.lanes.deaths import death
from raykd.lanes.failures import explain, mended_by_restart
from trainables.data.store_images import StoreDamaged
from trainables.spec.trial import OptimSpec, StudentSpec, TrialSpec

TRIAL = TrialSpec(
    method="none", config={}, student=StudentSpec(arch="none"), optim=OptimSpec(batch_size=4096), epochs=1
)
CUDA = (
    "CUDA out of memory. Tried to allocate 20.00 GiB. GPU 0 has a total capacity of 139.81 GiB of which "
    "1.25 GiB is free. Process 7 has 138.55 GiB memory in use."
)


def raised(asking: str) -> Exception:
    with pytest.raises((RuntimeError, MemoryError)) as caught:
        torch.empty(2**50) if asking == "torch" else np.empty(2**50)
    return caught.value


@pytest.mark.parametrize(
    ("error", "said"),
    [
        ("torch", r"it asked for 4194304.0 GiB more on \S+, which has \d+ GiB;"),
        ("numpy", r"it asked for 8.00 PiB more on \S+, which has \d+ GiB;"),
        (MemoryError(), r"it asked for more than there is on \S+, which has \d+ GiB;"),
        (OSError(errno.ENOMEM, os.strerror(errno.ENOMEM)), r"it asked for more than there is on \S+, which"),
        (torch.OutOfMemoryError(CUDA), "it asked for 20.00 GiB more on GPU 0, which has 139.81 GiB;"),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling"), "there is on its GPU;"),
    ],
)
def test_out_of_memory_says_what_to_lower(error: Exception | str, said: str) -> None:
    error = raised(error) if isinstance(error, str) else error
    reason = explain(error, TRIAL)
    assert re.match(r"out of memory with optim\.batch_size 4096: ", reason) and re.search(said, reason), (
        reason
    )
    assert "smaller optim.batch_size" in reason


def test_other_errors_say_what_they_are() -> None:
    assert explain(ZeroDivisionError("a bug\nand more"), TRIAL) == "ZeroDivisionError: a bug"
    assert (
        explain(RuntimeError("Connection closed by peer"), None) == "RuntimeError: Connection closed by peer"
    )
    assert explain(OSError(errno.ENOSPC, "No space left on device"), TRIAL).startswith("OSError")


def test_only_what_a_restart_may_mend_is_tried_again() -> None:
    assert mended_by_restart(RuntimeError("[gloo/transport/tcp/pair.cc:538] Connection closed by peer"))
    assert mended_by_restart(torch.distributed.DistBackendError("NCCL communicator was aborted on rank 1"))
    assert mended_by_restart(ConnectionResetError(errno.ECONNRESET, "Connection reset by peer"))
    assert mended_by_restart(StoreDamaged("image 17 of train.arrow is not what was written"))
    assert not mended_by_restart(ZeroDivisionError("a bug in a trainable"))
    assert not mended_by_restart(raised("torch"))


def test_a_death_is_told_from_an_error_that_was_raised() -> None:
    gone = ActorDiedError()
    assert "was killed" in str(death(WorkerHealthCheckFailedError("a worker", gone)))
    low = OutOfMemoryError("killed due to the node running low on memory")
    assert str(death(low)).startswith("out of memory: Ray killed the worker")
    assert death(ValueError("raised in the trainable")) is None
