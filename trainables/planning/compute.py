"""The floating-point operations of a trial, so that a baseline can get as much compute.

    step_flops(retro_trial)                    # of one optimizer step
    equal_epochs(retro_trial, moco_trial)      # epochs of moco with the compute of the retro trial

No data is opened and no teacher is trained: the cost of an image depends on neither.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode, conv_flop_count

from trainables.core.isolation import isolated
from trainables.data.data_sets import check_data
from trainables.methods import load_method
from trainables.methods.base import Batch, Context, Method
from trainables.planning.check import TrialChecker
from trainables.spec.trial import TrialSpec
from trainables.teachers.teacher import Teacher, load_teacher
from trainables.training.run import make_method
from trainables.training.teacher_file import teacher_path, teacher_trial

_IMAGES = 16  # two passes, of so many and of half as many images, give the cost of an image and of a batch

_epochs: dict[str, float] = {}  # a trial without epochs and seed, as JSON -> operations of an epoch

Contexts = Callable[[TrialSpec], Context]  # trial -> what its method may know, such as `TrialChecker.context`


def step_flops(trial: TrialSpec, context: Contexts | None = None) -> float:
    """Floating-point operations of one optimizer step of the global batch. `context` knows the data.

    Left out, the data set of the trial is looked at.

    Counted on a few images in every view, not estimated: matrix products and convolutions in the forward and
    backward pass of what is trained and in the forward pass of teacher and momentum encoder. A teacher that
    is not trained yet has the same cost: it does not depend on the weights.
    """
    context = context or TrialChecker().context
    with isolated(trial.seed):
        method = bare_method(trial, context).train()
        most = min(_IMAGES, context(trial).train_size)
        fewer, more = (_counted(method, trial, images) for images in (most // 2, most))
    each = (more - fewer) / (most - most // 2)
    fixed = more - most * each  # the cost of a micro-batch of any size, such as RRKD's anchors
    return each * trial.optim.batch_size + fixed * trial.optim.accumulate


def epoch_steps(trial: TrialSpec) -> int:
    """Optimizer steps of an epoch; pictures that cannot be decoded are counted, too."""
    return check_data(trial.data).train_images // trial.optim.batch_size


def epoch_flops(trial: TrialSpec) -> float:
    """Floating-point operations of an epoch. Counted once in a process for trials that are alike."""
    alike = trial.model_copy(update={"epochs": 1, "seed": 0}).model_dump_json()
    if alike not in _epochs:
        _epochs[alike] = step_flops(trial) * epoch_steps(trial)
    return _epochs[alike]


def trial_flops(trial: TrialSpec) -> float:
    """Floating-point operations of a whole trial."""
    return epoch_flops(trial) * trial.epochs


def equal_epochs(trial: TrialSpec, baseline: TrialSpec) -> int:
    """The epochs of `baseline` that cost as much as `trial`; at least 1."""
    return max(1, round(trial.epochs * epoch_flops(trial) / epoch_flops(baseline)))


def trained_parameters(trial: TrialSpec, context: Contexts | None = None) -> int:
    """The number of trained parameters: of the student, and of its adapters and heads."""
    with isolated(trial.seed):
        method = bare_method(trial, context or TrialChecker().context)
    return sum(parameter.numel() for parameter in method.parameters() if parameter.requires_grad)


def bare_method(trial: TrialSpec, context: Contexts) -> Method:
    """The trial's method, untrained, without `begin`; a teacher that is not trained yet is untrained, too."""
    config = load_method(trial.method).Config(**trial.config)
    teachers = [bare_teacher(one, context) for one in trial.of_each_teacher]
    return make_method(trial, config, teachers, context(trial))


def bare_teacher(trial: TrialSpec, context: Contexts) -> Teacher:
    """The teacher of a trial that has one, untrained where it is not trained yet."""
    training = teacher_trial(trial)
    if training is not None:
        taught = bare_method(training, context)
        return Teacher(taught.student, taught.own_head(), classifier=taught.own_classifier())
    assert trial.teacher is not None
    return load_teacher(trial.teacher, teacher_path(trial, Path()))


def _counted(method: Method, trial: TrialSpec, images: int) -> float:
    """Forward and backward of a micro-batch of `images`."""
    side = trial.data.image_size
    views = [torch.randn(images, 3, side, side) for _ in range(method.views)]
    ids = torch.arange(images)
    labels = ids % method.context.classes if method.context.classes else torch.full_like(ids, -1)
    with FlopCounterMode(display=False, custom_mapping=_MENDED) as counter:
        method(Batch(views, labels, ids)).total.backward()
    return float(counter.get_total_flops())


def _convolution_backward(*given: Any, **_: Any) -> int:
    """The forward pass's operations for each of the two gradients that is computed.

    torch's own formula counts the gradient of a depthwise weight as that of a dense one, `groups` times as
    much.
    """
    grad_out, x, weight, _bias, _stride, _padding, _dilation, transposed, *_more, computed = given
    return int((computed[0] + computed[1]) * conv_flop_count(x, weight, grad_out, transposed))


_MENDED = {torch.ops.aten.convolution_backward: _convolution_backward}
