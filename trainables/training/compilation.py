"""`torch.compile` of a trial's networks, where it pays: `optim.compile`.

Only the networks are compiled, in place: names of weights, checkpoints and exported students are the same.
Probes run them uncompiled (`uncompiled`), so that scores compare. Networks of one architecture share what was
compiled for a shape, so a lane compiles in its first trial and later trials find it.
"""

from __future__ import annotations

import contextlib
import functools
import logging
from collections.abc import Iterator

import torch

from trainables.core.distributed import SyncBatchNorm
from trainables.methods.base import Method
from trainables.networks.backbones import Backbone
from trainables.spec.trial import OptimSpec

_BACKEND = "inductor"
_KEPT = 256  # compiled variants (architecture, shape, mode) that a process keeps; further ones run uncompiled


def compile_networks(method: Method, optim: OptimSpec, where: torch.device) -> bool:
    """Compile the backbones in a method and its teacher as `optim.compile` says; returns whether it did.

    `auto` does so on GPUs. Where torch cannot compile, nothing happens. A method that reads feature maps is
    not compiled, because the hooks that read them differ in each step. Networks with batch statistics over
    several workers are not either, because communication would cut them into pieces.
    """
    wanted = optim.compile == "on" or (optim.compile == "auto" and where.type == "cuda")
    modules = [*method.modules(), *(module for teacher in method.teachers for module in teacher.modules())]
    if (
        not wanted
        or "feature_maps" in method.requires(method.config)
        or any(isinstance(module, SyncBatchNorm) for module in modules)
        or not _has_compiler(where.type)
    ):
        return False
    torch._dynamo.config.recompile_limit = _KEPT  # for one function, and all networks are compiled as one
    torch._dynamo.config.suppress_errors = True  # a network that cannot be compiled runs uncompiled
    logging.getLogger("torch._dynamo").setLevel(logging.ERROR)
    for module in modules:
        if isinstance(module, Backbone):
            module.model.compile(backend=_BACKEND, dynamic=False)
    return True


@contextlib.contextmanager
def uncompiled() -> Iterator[None]:
    """Inside, compiled networks run as they were written."""
    with torch.compiler.set_stance("force_eager"):
        yield


@functools.cache
def _has_compiler(kind: str) -> bool:
    """Whether torch can compile for this kind of device here. Tried on a small function, once a process."""

    def tried(x: torch.Tensor) -> torch.Tensor:
        return (x * 2).relu()

    try:
        torch.compile(tried, backend=_BACKEND)(torch.ones(8, device=kind))
    except Exception:  # no C++ compiler, no Triton, a GPU that is too old
        return False
    return True
