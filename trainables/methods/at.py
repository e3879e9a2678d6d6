"""AT, attention transfer: the energy of the student's stages is where the teacher's is.

Zagoruyko and Komodakis 2017, "Paying more attention to attention" (arXiv 1612.03928), the activation-based
form; weight and reduction as in `HobbitLong/RepDistiller`.

    A(F) = u(sum_c F_c^2)     L = sum over stages of mean (A(F_s) - A(F_t))^2      (one view, shared)

The mean is over positions and batch; the weight of 1000 is for this mean. Stages are matched from the deepest
backwards, and the larger map is averaged down to the smaller. A pair whose maps meet at 1x1 is left out,
because its attention map is 1 for every image. A run without any other pair is refused. `stage_N` in the log
names the compared stages by the student's numbers.

The paper adds the loss to a cross-entropy (`ce_weight`), and so do both presets. Without labels the loss
trains the student up to the deepest compared stage; the rest keeps its initial weights.

    raykd run search_spaces/at.yaml
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


class AtConfig(LabelledConfig):
    """Settings of AT."""

    weight: float = Field(1000.0, gt=0, description="of the stages' sum")


def attention(maps_BCHW: Tensor) -> Tensor:
    """(B, C, h, w) -> (B, h w): the channels' mean square at each position, with an L2 norm of 1.

    Zagoruyko and Komodakis 2017, section 3.1: F_sum^2, normalised as in equation (2). The norm makes sum and
    mean over channels the same.
    """
    return F.normalize(maps_BCHW.square().mean(1).flatten(1), dim=1)


@in_float32
def attention_loss(s_BCHW: Tensor, t_BEHW: Tensor) -> Tensor:
    """Mean over batch and positions of `(A(s) - A(t))^2`, at the smaller side of the two maps.

    Scalar, from 0 to 2 / (h w), because attention maps have no negative values. No gradient reaches `t`.
    Equation (2) with p = 2, squared, as in the published codes.
    """
    student, teacher = at_one_size(s_BCHW, t_BEHW.detach())
    return (attention(student) - attention(teacher)).square().mean()


class At(Staged[AtConfig]):
    """Attention transfer between stages; see the head of this file."""

    name = "at"
    summary = "AT: attention transfer, where in an image each stage has its energy; best beside labels"
    presets: ClassVar[Presets] = {
        "paper": {  # CIFAR-100 as in RepDistiller, the source of the weight
            "config": {"weight": 1000.0, "ce_weight": 1.0},
            **REPDISTILLER,
        },
        "digits": {"config": {"weight": 30.0, "ce_weight": 1.0}, **on_digits(lr=5e-3)},
    }
    small: ClassVar = {"weight": 1.0}

    def forward(self, batch: Batch) -> Losses:
        """The weighted sum over stages, and the labels' part."""
        return self.summed(batch, self.config.weight, attention_loss)
