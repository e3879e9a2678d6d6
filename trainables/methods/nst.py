"""NST, neuron selectivity transfer: the student's channels respond where some of the teacher's do.

Huang and Wang 2017, "Like what you like: knowledge distill via neuron selectivity transfer"
(arXiv 1707.01219); weight and reduction as in `HobbitLong/RepDistiller`.

    x_i: channel i's map, flattened, with an L2 norm of 1     k(x, y) = (x . y)^2
    L = sum over stages of mean k(s, s') + mean k(t, t') - 2 mean k(s, t)            (one view, shared)

The squared maximum mean discrepancy of the two sets of channels, of each image: channels are compared as
sets, so their numbers may differ and none has a partner. With this kernel it is the squared distance of the
two mean outer products, `|X_s'X_s / C_s - X_t'X_t / C_t|_F^2`: what is matched is which positions respond
together. Stages are matched from the deepest backwards, the larger map averaged down to the smaller; those
whose maps meet at 1x1 are left out, for there every channel is 1 or -1 and the loss 0, and a run that has no
others is refused. The log's `stage_N` say which are compared, by the student's numbers.

The paper adds the loss to cross-entropy (`ce_weight`), and so do both presets. Without labels it trains the
student up to the deepest stage compared; the rest is left as initialised.

Expect on digits (preset `digits`, half-width test_efficientnet, two seeds, teacher a test_resnet of 64 epochs
of MoCo at view strength 1): 5-shot ridge 98; the labels alone give 98.5, so that digits cannot show a gain;
with the published weight of 50 86 to 88. Without labels 40 to 43.5, far less than the untrained student's 69:
at 16 px the maps have sides of 4, 2, 1 and 1, so that only the two shallow stages are compared, and what is
matched there, which of 4 places respond together, is met by channels that vary alike: the effective rank of
the second stage's maps over images falls from 10 to 3 (the teacher's is 19), and what is lost there is lost
behind it. The first stage's loss falls from .46 in the first epoch to .11, with weight .5 to .4.

    raykd run search_spaces/nst.yaml
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar

from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from trainables.core.numerics import in_float32
from trainables.methods.base import Batch, Losses
from trainables.methods.parts.classifier import LabelledConfig
from trainables.methods.parts.recipes import REPDISTILLER, on_digits
from trainables.methods.parts.stages import Staged, at_one_size


@in_float32
def selectivity_loss(s_BCHW: Tensor, t_BEHW: Tensor) -> Tensor:
    """Squared MMD between the normalised channel maps under `k(x, y) = (x . y)^2`, mean over the batch.

    Scalar, from 0 (also where one side's channels are the other's in another order, each several times, of
    another scale or sign) to 2; no gradient reaches `t`. At the smaller side of the two maps. Huang and Wang
    2017, the polynomial kernel with d = 2 and c = 0.
    """
    student, teacher = (
        F.normalize(x.flatten(2), dim=2) for x in at_one_size(s_BCHW, t_BEHW.detach())
    )  # (B, C, h w), (B, E, h w)
    within = _kernel_mean(student, student) + _kernel_mean(teacher, teacher)
    return (within - 2 * _kernel_mean(student, teacher)).mean()


def _kernel_mean(x_BCP: Tensor, y_BEP: Tensor) -> Tensor:
    """(B): the mean of (x_i . y_j)^2 over all pairs of channels.

    Summed by channels or, which is the same number, by positions: whichever makes the smaller product.
    """
    (channels, positions), others = x_BCP.shape[1:], y_BEP.shape[1]
    if positions**2 < channels * others:
        products = (x_BCP.mT @ x_BCP) * (y_BEP.mT @ y_BEP)
    else:
        products = (x_BCP @ y_BEP.mT).square()
    return products.sum((1, 2)) / (channels * others)


class Nst(Staged):
    name = "nst"
    summary = "NST: channels that respond where the teacher's do, as sets (MMD); best beside labels"

    class Config(LabelledConfig):
        weight: Annotated[float, Field(gt=0)] = Field(50.0, description="of the stages' summed discrepancies")

    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "paper": {  # CIFAR-100 as in RepDistiller, whose weight it is
            "config": {"weight": 50.0, "ce_weight": 1.0},
            **REPDISTILLER,
        },
        "digits": {
            "config": {"weight": 0.5, "ce_weight": 1.0},
            **on_digits(lr=5e-3),
        },
    }
    config: Config

    def forward(self, batch: Batch) -> Losses:
        return self.summed(batch, self.config.weight, selectivity_loss)
