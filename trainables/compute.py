"""How much arithmetic a trial costs, so that a baseline can be given as much: at equal epochs it gets less.

equal_epochs(retro_trial, moco_trial, workspace)     # epochs of moco that cost what the retro trial does
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch.utils.flop_counter import FlopCounterMode, conv_flop_count

from trainables.backbones import build_backbone
from trainables.data import open_data
from trainables.isolation import isolated
from trainables.method import Batch, Context, Method, load_method
from trainables.run import build_method
from trainables.teachers import Teacher, load_teacher, teacher_file, teacher_trial
from trainables.trial import TrialSpec

if TYPE_CHECKING:
    from trainables.data import DataSet
    from trainables.loop import Workspace

_CPU = torch.device("cpu")
_IMAGES = 16  # passed through, and half as many: what an image costs, and a batch of any size on top


def step_flops(trial: TrialSpec, workspace: Workspace) -> float:
    """Floating-point operations of one optimizer step of the global batch.

    Counted, not estimated, on a few images in every view: forward and backward of what is trained, forward of
    teacher and mean student; matrix products and convolutions. A teacher that is still to be trained counts
    as it will be: no cost depends on its weights.
    """
    return _step_flops(trial, open_data(trial.data, workspace.cache), workspace)


def equal_epochs(trial: TrialSpec, baseline: TrialSpec, workspace: Workspace) -> int:
    """For how many epochs `baseline` can be trained for what `trial` costs; at least 1."""

    def epoch_flops(of: TrialSpec) -> float:
        data = open_data(of.data, workspace.cache)
        return _step_flops(of, data, workspace) * (len(data.train_ids) // of.optim.batch_size)

    return max(1, round(trial.epochs * epoch_flops(trial) / epoch_flops(baseline)))


def trained_parameters(trial: TrialSpec, context: Callable[[TrialSpec], Context]) -> int:
    """How many numbers an optimizer moves: those of the student, and of adapters and heads beside it.

    `context` says what a trial's method may know, as `TrialChecker.context` does; no data is opened. A
    teacher that is still to be trained counts by its shapes.
    """
    training = teacher_trial(trial)
    with isolated(trial.seed):
        teacher = None
        if training is not None:
            taught = _bare(training, None, context)
            teacher = Teacher(taught.student, taught.own_head(), classifier=taught.own_classifier())
        elif trial.teacher is not None:
            teacher = load_teacher(trial.teacher, Path(), trial)
        method = _bare(trial, teacher, context)
    return sum(parameter.numel() for parameter in method.parameters() if parameter.requires_grad)


def _bare(trial: TrialSpec, teacher: Teacher | None, context: Callable[[TrialSpec], Context]) -> Method:
    """The trial's method, untrained, that has seen no image."""
    kind = load_method(trial.method)
    return kind(
        kind.Config(**trial.config), build_backbone(trial.student, trial.seed), teacher, context(trial)
    )


def _stand_in(trial: TrialSpec, data: DataSet, workspace: Workspace) -> Teacher | None:
    """An untrained teacher where the trained one is not there yet; None where it is, or there is none."""
    training = teacher_trial(trial)
    if training is None or teacher_file(training, workspace.teachers).exists():
        return None
    method = build_method(training, data, workspace, _CPU)
    return Teacher(method.student, method.own_head(), classifier=method.own_classifier())


def _step_flops(trial: TrialSpec, data: DataSet, workspace: Workspace) -> float:
    with isolated(trial.seed):
        method = build_method(
            trial, data, workspace, _CPU, _stand_in(trial, data, workspace), begin=False
        ).train()
        most = min(_IMAGES, len(data.train_ids))
        fewer, more = (_counted(method, trial, data, images) for images in (most // 2, most))
    each = (more - fewer) / (most - most // 2)
    fixed = more - most * each  # what a micro-batch costs whatever its size, such as RRKD's anchors
    return each * trial.optim.batch_size + fixed * trial.optim.accumulate


def _counted(method: Method, trial: TrialSpec, data: DataSet, images: int) -> float:
    """Forward and backward of a micro-batch of `images`."""
    ids = data.train_ids[:images]
    side = trial.data.image_size
    views = [torch.randn(len(ids), 3, side, side) for _ in range(method.views)]
    batch = Batch(views, torch.tensor(data.train.labels[ids]), torch.from_numpy(ids))
    with FlopCounterMode(display=False, custom_mapping=_MENDED) as counter:
        method(batch).total.backward()
    return float(counter.get_total_flops())


def _convolution_backward(
    grad_out: list[int],
    x: list[int],
    weight: list[int],
    _bias: Any,
    _stride: Any,
    _padding: Any,
    _dilation: Any,
    transposed: bool,
    _output_padding: Any,
    _groups: int,
    output_mask: list[bool],
    **_: Any,
) -> int:
    """What the forward costs, for each of the two gradients that is asked for.

    torch's own formula takes the gradient of a depthwise weight for a dense one's, `groups` times too much.
    """
    return (output_mask[0] + output_mask[1]) * conv_flop_count(x, weight, grad_out, transposed)


_MENDED = {torch.ops.aten.convolution_backward: _convolution_backward}
