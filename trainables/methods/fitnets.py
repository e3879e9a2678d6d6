"""FitNets: a regressor on a stage of the student gives the map of the teacher's stage.

Romero et al. 2015, "FitNets: hints for thin deep nets" (arXiv 1412.6550); weight, regressor and reduction as
in `HobbitLong/RepDistiller`.

    L = mean (r(F_s) - F_t)^2                    (one view, shared; mean over batch, channels and positions)

`stage` counts from the deepest backwards, on both sides: 1 is the last one, 2 the one before, a middle layer
of networks with three or four; there are as many as the network with fewer has. (The `stage_N` that AT and
NST log count from the image.) The larger map is averaged down to the smaller before the regressor: a 1x1
convolution and batch norm, followed by ReLU as in the common code (`relu: false` for teachers whose stages
end without one, such as EfficientNets: a ReLU cannot give their negative values). The paper's regressor was
a convolution of both maps' sides instead, one with as few parameters as would do.

The paper trains the hint first and knowledge distillation afterwards; the common code adds the hint to
cross-entropy (`ce_weight`), and so does `paper` here. Without labels the hint trains the student up to that
stage and the rest is left as initialised.

Expect on digits (preset `digits`, half-width test_efficientnet, two seeds): 5-shot ridge 88.5 to 89 from a
test_resnet taught by 64 epochs of MoCo at view strength 1 (itself 90); untrained 69. The earlier the stage,
the more of the student stays random: 82 at stage 2, 71.5 at stage 3, 56 at stage 4. At 16 px the maps of both
networks have sides of 4, 2, 1 and 1, so that stage 1 compares features in all but name. `relu: false` makes
no difference with this teacher; `ce_weight: 1` gives 91.5, and labels alone 98.5: a weight of 100 holds the
student to a teacher of 90. The hint falls from .65 in the first epoch to .12.

    raykd run search_spaces/fitnets.yaml
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar

from pydantic import Field
from torch import Tensor, nn

from trainables.core.errors import UserError
from trainables.core.numerics import in_float32
from trainables.methods.base import Batch, Context, Losses, MethodConfig
from trainables.methods.parts.classifier import LabelledConfig
from trainables.methods.parts.recipes import REPDISTILLER, on_digits
from trainables.methods.parts.stages import Pair, Staged, Stages, at_one_size, pair_stages
from trainables.networks.backbones import Backbone, seeded
from trainables.teachers.teacher import Teacher


@in_float32
def hint_loss(s_BCHW: Tensor, t_BCHW: Tensor) -> Tensor:
    """Mean over batch, channels and positions of `(s - t)^2`; no gradient reaches `t`.

    Scalar, 0 at a perfect match. Romero et al. 2015, equation (3), times 2 and with a mean for its sum.
    """
    return (s_BCHW - t_BCHW.detach()).square().mean()


class FitNets(Staged):
    name = "fitnets"
    summary = "FitNets: a teacher's stage predicted from the student's by a regressor; best beside labels"

    class Config(LabelledConfig):
        weight: Annotated[float, Field(gt=0)] = Field(100.0, description="of the hint's mean squared error")
        stage: Annotated[int, Field(ge=1)] = Field(
            2, description="where both networks are compared, counted from the deepest: 1 is the last stage"
        )
        relu: bool = Field(True, description="does the regressor end in a ReLU, as in the common code")

    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "paper": {  # CIFAR-100 as in RepDistiller, whose weight it is
            "config": {"weight": 100.0, "stage": 2, "relu": True, "ce_weight": 1.0},
            **REPDISTILLER,
        },
        "digits": {
            "config": {"weight": 100.0, "stage": 1},
            **on_digits(lr=5e-3),
        },
    }
    config: Config

    def __init__(
        self, config: MethodConfig, student: Backbone, teacher: Teacher | None, context: Context
    ) -> None:
        super().__init__(config, student, teacher, context)
        (pair,) = self.pairs
        width = self.stages[1][pair.teacher][0]
        with seeded(context.seed):
            # No bias: the norm would take it away again.
            self.regressor = nn.Sequential(
                nn.Conv2d(self.stages[0][pair.student][0], width, 1, bias=False), nn.BatchNorm2d(width)
            )
        if self.config.relu:
            self.regressor.append(nn.ReLU())

    @classmethod
    def choose(
        cls, config: MethodConfig, student: Stages, teacher: Stages, image_size: int
    ) -> tuple[Pair, ...]:
        assert isinstance(config, cls.Config)
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
        features, ((student, teacher),) = self.compared(batch.views[0])
        student, teacher = at_one_size(student, teacher)
        hint = hint_loss(self.regressor(student), teacher)
        return self.with_labels(self.config.weight * hint, {"hint": hint}, features, batch.labels)
