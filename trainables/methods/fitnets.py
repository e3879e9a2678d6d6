"""FitNets: a regressor on a stage of the student predicts the map of the teacher's stage.

Romero et al. 2015, "FitNets: hints for thin deep nets" (arXiv 1412.6550); weight, regressor and reduction as
in `HobbitLong/RepDistiller`.

    L = mean (r(F_s) - F_t)^2                    (one view, shared; mean over batch, channels and positions)

`stage` counts from the deepest backwards in both networks: 1 is the last stage, 2 the one before it, a middle
layer of networks with three or four. There are as many as the network with fewer stages has. (`stage_N` in
the logs of AT and NST counts from the image.) The larger map is averaged down to the smaller before the
regressor. The regressor is a 1x1 convolution and batch norm, followed by ReLU as in the common code. Use
`relu: false` for teachers whose stages end without a ReLU, such as EfficientNets, because a ReLU cannot give
their negative values. The paper's regressor was instead a convolution that reduces the student's side to the
teacher's, with as few parameters as possible.

The paper trains the hint first and then knowledge distillation. The common code adds the hint to a
cross-entropy (`ce_weight`), and so does preset `paper`. Without labels the hint trains the student up to that
stage; the rest keeps its initial weights.

    raykd run search_spaces/fitnets.yaml
"""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field
from torch import Tensor, nn

from trainables.core.errors import UserError
from trainables.core.numerics import in_float32
from trainables.methods.base import Batch, Losses, Presets
from trainables.methods.parts.classifier import LabelledConfig
from trainables.methods.parts.recipes import REPDISTILLER, on_digits
from trainables.methods.parts.stages import Pair, Staged, Stages, at_one_size, pair_stages


class FitNetsConfig(LabelledConfig):
    """Settings of FitNets."""

    weight: float = Field(100.0, gt=0, description="of the hint's mean squared error")
    stage: int = Field(
        2, ge=1, description="where both networks are compared, counted from the deepest: 1 is the last stage"
    )
    relu: bool = Field(True, description="does the regressor end in a ReLU, as in the common code")


@in_float32
def hint_loss(s_BCHW: Tensor, t_BCHW: Tensor) -> Tensor:
    """Mean over batch, channels and positions of `(s - t)^2`. No gradient reaches `t`.

    Scalar; 0 at a perfect match. Romero et al. 2015, equation (3), times 2 and with a mean for its sum.
    """
    return (s_BCHW - t_BCHW.detach()).square().mean()


class FitNets(Staged[FitNetsConfig]):
    """FitNets' hint, beside labels or alone; see the head of this file."""

    name = "fitnets"
    summary = "FitNets: a teacher's stage predicted from the student's by a regressor; best beside labels"
    presets: ClassVar[Presets] = {
        "paper": {  # CIFAR-100 as in RepDistiller, the source of the weight
            "config": {"weight": 100.0, "stage": 2, "relu": True, "ce_weight": 1.0},
            **REPDISTILLER,
        },
        "digits": {"config": {"weight": 100.0, "stage": 1}, **on_digits(lr=5e-3)},
    }
    small: ClassVar = {"weight": 1.0}

    def build(self) -> None:
        """Make the regressor."""
        super().build()
        (pair,) = self.pairs
        width = self.stages[1][pair.teacher][0]
        # No bias: the norm would remove it.
        self.regressor = nn.Sequential(
            nn.Conv2d(self.stages[0][pair.student][0], width, 1, bias=False), nn.BatchNorm2d(width)
        )
        if self.config.relu:
            self.regressor.append(nn.ReLU())

    @classmethod
    def choose(
        cls, config: FitNetsConfig, student: Stages, teacher: Stages, image_size: int
    ) -> tuple[Pair, ...]:
        """The one pair at `stage`. Raises `UserError` if a network has fewer stages."""
        pairs = pair_stages(student, teacher)
        if config.stage > len(pairs):
            raise UserError(
                "config.stage",
                f"counts from the deepest, which is 1: the student has {len(student)} stages with maps, the "
                f"teacher {len(teacher)}",
                value=config.stage,
                expected=f"1 to {len(pairs)}",
            )
        return (pairs[-config.stage],)

    def forward(self, batch: Batch) -> Losses:
        """The weighted hint, and the labels' part."""
        features, ((student, teacher),) = self.compared(batch)
        student, teacher = at_one_size(student, teacher)
        hint = hint_loss(self.regressor(student), teacher)
        return self.with_labels(self.config.weight * hint, {"hint": hint}, features, batch.labels)
