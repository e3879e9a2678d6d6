"""AT, attention transfer: the student's stages put their energy where the teacher's do.

Zagoruyko and Komodakis 2017, "Paying more attention to attention" (arXiv 1612.03928), its activation-based
form; weight and reduction as in `HobbitLong/RepDistiller`.

    A(F) = u(sum_c F_c^2)     L = sum over stages of mean (A(F_s) - A(F_t))^2      (one view, shared)

The mean is over positions and batch: the weight of 1000 belongs to it. Stages are matched from the deepest
backwards, the larger map averaged down to the smaller; those whose maps meet at 1x1 are left out, for there
an attention map is 1 whatever the image, and a run that has no others is refused. The log's `stage_N` say
which are compared, by the student's numbers.

The paper adds the loss to cross-entropy (`ce_weight`), and so do both presets. Without labels it trains the
student up to the deepest stage compared; the rest is left as initialised.

Expect on digits (preset `digits`, half-width test_efficientnet, two seeds, teacher a test_resnet of 64 epochs
of MoCo at view strength 1): 5-shot ridge 98.5, as the labels alone give, so that digits cannot show a gain;
with the published weight of 1000 95. Without labels 64 to 65, less than the untrained student's 69: at 16 px
the maps have sides of 4, 2, 1 and 1, so that only the two shallow stages are compared and the deep ones stay
random; where the energy is, in 16 and 4 places, says little of what is there (FitNets, which predicts the
channels, gets 71.5 from the second stage). The first stage's loss falls from .016 in the first epoch to .002.

    raykd run search_spaces/at.yaml
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


def attention(maps_BCHW: Tensor) -> Tensor:
    """(B, C, h, w) -> (B, h w): the channels' mean square at each position, with an L2 norm of 1.

    Zagoruyko and Komodakis 2017, section 3.1: F_sum^2, normalised as in equation (2). Sum or mean over
    channels is one and the same here.
    """
    return F.normalize(maps_BCHW.square().mean(1).flatten(1), dim=1)


@in_float32
def attention_loss(s_BCHW: Tensor, t_BEHW: Tensor) -> Tensor:
    """Mean over batch and positions of `(A(s) - A(t))^2`, at the smaller side of the two maps.

    Scalar, from 0 to 2 / (h w), since nothing in an attention map is negative; no gradient reaches `t`.
    Equation (2) with p = 2, squared, as the published codes have it.
    """
    student, teacher = at_one_size(s_BCHW, t_BEHW.detach())
    return (attention(student) - attention(teacher)).square().mean()


class At(Staged):
    name = "at"
    summary = "AT: attention transfer, where in an image each stage has its energy; best beside labels"

    class Config(LabelledConfig):
        weight: Annotated[float, Field(gt=0)] = Field(1000.0, description="of the stages' sum")

    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "paper": {  # CIFAR-100 as in RepDistiller, whose weight it is
            "config": {"weight": 1000.0, "ce_weight": 1.0},
            **REPDISTILLER,
        },
        "digits": {
            "config": {"weight": 30.0, "ce_weight": 1.0},
            **on_digits(lr=5e-3),
        },
    }
    config: Config

    def forward(self, batch: Batch) -> Losses:
        return self.summed(batch, self.config.weight, attention_loss)
