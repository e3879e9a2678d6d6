"""NST, neuron selectivity transfer: the student's channels respond where some of the teacher's channels do.

Huang and Wang 2017, "Like what you like: knowledge distill via neuron selectivity transfer"
(arXiv 1707.01219); weight and reduction as in `HobbitLong/RepDistiller`.

    x_i: channel i's map, flattened, with an L2 norm of 1     k(x, y) = (x . y)^2
    L = sum over stages of mean k(s, s') + mean k(t, t') - 2 mean k(s, t)            (one view, shared)

This is the squared maximum mean discrepancy (MMD) of the two sets of channels of each image. Channels are
compared as sets, so their numbers may differ and no channel has a partner. With this kernel it is the squared
distance of the two mean outer products, `|X_s'X_s / C_s - X_t'X_t / C_t|_F^2`: the loss compares which
positions respond together. Stages are matched from the deepest backwards, and the larger map is averaged down
to the smaller. A pair whose maps meet at 1x1 is left out, because every channel is 1 or -1 there and the loss
is 0. A run without any other pair is refused. `stage_N` in the log names the compared stages by the student's
numbers.

The paper adds the loss to a cross-entropy (`ce_weight`), and so do both presets. Without labels the loss
trains the student up to the deepest compared stage; the rest keeps its initial weights.

    raykd run search_spaces/nst.yaml
"""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from trainables.core.numerics import in_float32
from trainables.methods.base import Batch, Losses, Presets
from trainables.methods.parts.classifier import LabelledConfig
from trainables.methods.parts.recipes import REPDISTILLER, on_digits
from trainables.methods.parts.stages import Staged, at_one_size


class NstConfig(LabelledConfig):
    """Settings of NST."""

    weight: float = Field(50.0, gt=0, description="of the stages' summed discrepancies")


@in_float32
def selectivity_loss(s_BCHW: Tensor, t_BEHW: Tensor) -> Tensor:
    """Squared MMD between the normalised channel maps under `k(x, y) = (x . y)^2`, mean over the batch.

    Scalar, from 0 to 2, at the smaller side of the two maps. It is 0 also if one side's channels are the
    other's in another order, each repeated equally often, with another scale or sign. No gradient reaches
    `t`. Huang and Wang 2017, the polynomial kernel with d = 2 and c = 0.
    """
    student, teacher = (
        F.normalize(x.flatten(2), dim=2) for x in at_one_size(s_BCHW, t_BEHW.detach())
    )  # (B, C, h w), (B, E, h w)
    within = _kernel_mean(student, student) + _kernel_mean(teacher, teacher)
    return (within - 2 * _kernel_mean(student, teacher)).mean()


def _kernel_mean(x_BCP: Tensor, y_BEP: Tensor) -> Tensor:
    """(B): the mean of (x_i . y_j)^2 over all pairs of channels.

    The sum over channels and the sum over positions give the same number; the smaller product is computed.
    """
    (channels, positions), others = x_BCP.shape[1:], y_BEP.shape[1]
    if positions**2 < channels * others:
        products = (x_BCP.mT @ x_BCP) * (y_BEP.mT @ y_BEP)
    else:
        products = (x_BCP @ y_BEP.mT).square()
    return products.sum((1, 2)) / (channels * others)


class Nst(Staged[NstConfig]):
    """Neuron selectivity transfer between stages; see the head of this file."""

    name = "nst"
    summary = "NST: channels that respond where the teacher's do, as sets (MMD); best beside labels"
    presets: ClassVar[Presets] = {
        "paper": {  # CIFAR-100 as in RepDistiller, the source of the weight
            "config": {"weight": 50.0, "ce_weight": 1.0},
            **REPDISTILLER,
        },
        "digits": {"config": {"weight": 0.5, "ce_weight": 1.0}, **on_digits(lr=5e-3)},
    }
    small: ClassVar = {"weight": 1.0}

    def forward(self, batch: Batch) -> Losses:
        """The weighted sum over stages, and the labels' part."""
        return self.summed(batch, self.config.weight, selectivity_loss)
