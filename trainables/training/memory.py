"""Estimates of the memory that a method's settings need, made before training.

Settings that are harmless with small images and batches may need more memory than any device has: fixed
anchors keep their images and pass through the student in every step; relations within a batch grow with its
square or cube. Only this memory is estimated (`Method.memory`), not that of the networks and the batch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import torch

from trainables.core import limits
from trainables.core.errors import UserError
from trainables.methods.base import Context, Method, MethodConfig, Need
from trainables.networks.backbones import backbone_facts, build_backbone, seeded
from trainables.networks.sized import network_of
from trainables.spec.trial import ModelSpec, TrialSpec, teacher_field

GIB = 2**30
LARGEST = 288 * GIB  # the largest memory of one device in 2026
_KEPT = GIB  # larger buffers get a remark, because every checkpoint contains them
_HALF = 2  # bytes of float32 / bytes of bfloat16; activations are assumed to be in bfloat16
_IMAGES = 2  # batch size for measuring activations


def device_memory(where: torch.device) -> int:
    """Bytes that this process may use: its share of a GPU's memory, or the host's memory within limits."""
    if where.type == "cuda":
        share = getattr(torch.cuda, "get_per_process_memory_fraction", lambda _: 1.0)(where)  # torch >= 2.8
        return int(torch.cuda.get_device_properties(where).total_memory * share)
    return int(limits.memory().value)


def check_memory(
    trial: TrialSpec, kind: type[Method], context: Context, workers: int = 1, most: int | None = None
) -> None:
    """`UserError` if the method's settings need more than `most` bytes on a worker's device.

    The error contains the largest value that fits. Without `most` the limit is `LARGEST`.
    """
    limit = LARGEST if most is None else most
    config = kind.Config(**trial.config)

    def needed(value: int | None = None, field: str = "") -> int:
        changed, within = _with(config, context, field, value) if value is not None else (config, context)
        return sum(_bytes(need, within, workers) for need in kind.memory(changed, within))

    total = needed()
    if total <= limit:
        return
    need = max(kind.memory(config, context), key=lambda need: _bytes(need, context, workers))
    name = need.field.rpartition(".")[2]
    value = int(getattr(config, name)) if need.field.startswith("config.") else context.batch_size
    fits = _largest(lambda n: needed(n, need.field) <= limit, value)
    has = "no device has so much" if most is None else f"each worker has {in_words(limit)}"
    raise UserError(
        need.field,
        f"{need.what} would take {in_words(total)} on each worker, and {has}",
        value=value,
        expected=f"at most {fits}" if fits else "another setting of the method",
    )


def with_shapes(context: Context, trial: TrialSpec) -> Context:
    """`context` with the shapes of the trial's networks. Raises `UserError` for one that cannot be built."""
    side = trial.data.image_size
    teachers = [
        backbone_facts(network_of(one, field), one.side(trial.data), field)
        for one, field in ((one, teacher_field(trial, at)) for at, one in enumerate(trial.teachers))
    ]
    return replace(
        context,
        student=backbone_facts(trial.student.model, side),
        teacher=teachers[0] if teachers else None,
        further_teachers=tuple(teachers[1:]),
    )


def check_on_device(
    trial: TrialSpec, kind: type[Method], context: Context, workers: int, where: torch.device
) -> None:
    """`check_memory` with the memory of a worker's device, which is known only on the worker."""
    if kind.memory.__func__ is Method.memory.__func__ or trial.teacher is None:  # type: ignore[attr-defined]
        return
    known = with_shapes(context, trial)
    shared = workers if where.type == "cpu" else 1  # all workers of a trial may be on one host
    check_memory(trial, kind, known, workers, device_memory(where) // shared)


def heavy(trial: TrialSpec, kind: type[Method], context: Context) -> Iterator[str]:
    """Remarks about settings that make every checkpoint large, with their fields."""
    for need in kind.memory(kind.Config(**trial.config), context):
        if need.kept > _KEPT:
            yield (
                f"{need.field}: {need.what} take {in_words(need.kept)} of each worker's device, and of "
                "every checkpoint"
            )


def in_words(size: int) -> str:
    """A number of bytes, such as `7.3 GiB`."""
    return f"{size / GIB:.1f} GiB" if size >= GIB / 10 else f"{size / 2**20:.1f} MiB"


def _bytes(need: Need, context: Context, workers: int) -> int:
    passed = 0
    if need.images and context.student is not None and context.student.spec is not None:
        each = activation_bytes(context.student.spec, context.image_size)
        passed = -(-need.images // workers) * each // _HALF
    return need.kept + need.step + passed


def _with(config: MethodConfig, context: Context, field: str, value: int) -> tuple[MethodConfig, Context]:
    name = field.rpartition(".")[2]
    if field.startswith("config."):
        return config.model_copy(update={name: value}), context
    return config, replace(context, batch_size=value)


def _largest(fits: Callable[[int], bool], above: int) -> int:
    """The largest number below `above` that fits, 0 if none does. `fits` must be monotonic."""
    low, high = 0, above
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low


_known: dict[tuple[str, int], int] = {}


def activation_bytes(student: ModelSpec, side: int) -> int:
    """Bytes that a student keeps for the backward pass of one image of `side` pixels, in float32."""
    key = (student.model_dump_json(), side)
    if key not in _known:
        model = build_backbone(student, 0).train()
        weights = {parameter.data_ptr() for parameter in model.parameters()}
        kept: dict[int, int] = {}

        def keep(tensor: torch.Tensor) -> Any:
            storage = tensor.untyped_storage()
            if tensor.data_ptr() not in weights:
                kept[storage.data_ptr()] = storage.nbytes()
            return tensor

        with seeded(0), torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            out = model(torch.zeros(_IMAGES, 3, side, side))  # kept alive, so that no storage is reused
        del out
        _known[key] = sum(kept.values()) // _IMAGES
    return _known[key]
