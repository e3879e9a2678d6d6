"""Patch regression: a projection of the student's patches predicts the teacher's patches.

The formula and the defaults of `distillationv2` of lightly-train (docs.lightly.ai/train, "Distillation"; its
package, version 0.18). Written anew from the formula.

    x <- a x + (1 - a) x[p],   a ~ U(0, 1), p a permutation of the batch       (one view, mixed once for both)
    L = mean (r(P(F_s)) - F_t)^2        (over batch, patches and channels; r: resampled to the teacher's grid)

F_s is the student's map before pooling. F_t are the teacher's last `teacher_maps` maps, one behind the other
in their channels: of a ViT's last two blocks, each through the final norm. P works on each patch and is
linear, or with `projection_layers` above 1 an MLP with LayerNorm and GELU. Nothing is normalised; `normalise:
unit` compares directions, by the squared distance of unit vectors (2 - 2 cos), mean over batch and patches.

`grid` says where patches are compared, and why: `parts/patches.py`. At 1x1 this is a regression of pooled
features. A student's layers behind its map get no gradient and keep their initial weights. So a student with
weights there, such as a MobileNet-v3, is refused. The teacher's maps are too large to be shared between
trials. As in `queue_pseudo_labels`, mixtures are drawn for the global batch and not for each worker.

    raykd run search_spaces/patch_regression.yaml
"""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from trainables.core.errors import UserError
from trainables.core.numerics import in_float32
from trainables.methods.base import Batch, Context, Losses, Method, MethodConfig, Presets
from trainables.methods.parts.mixup import Mixup, MixupAlpha
from trainables.methods.parts.patches import (
    Grid,
    Projection,
    check_maps,
    freeze_behind_map,
    joined_maps,
    on_one_grid,
    teacher_maps,
    with_student,
)
from trainables.methods.parts.recipes import lightly_train, on_digits


class PatchRegressionConfig(MethodConfig):
    """Settings of patch regression."""

    teacher_maps: int = Field(
        2,
        ge=1,
        description="last maps of the teacher that are predicted: of a ViT's blocks, of a CNN's stages",
    )
    projection_layers: int = Field(1, ge=1, description="of the projection; 1: linear")
    projection_hidden: int = Field(
        2048, ge=1, description="width of its hidden layers; unused by `projection_layers: 1`"
    )
    normalise: Literal["none", "unit"] = Field(
        "none", description="none: values are compared, as in lightly-train; unit: directions"
    )
    grid: Grid = "teacher"
    mixup_alpha: MixupAlpha = 1.0


@in_float32
def patch_loss(s_BPD: Tensor, t_BPD: Tensor, normalise: Literal["none", "unit"] = "none") -> Tensor:
    """`mean (s - t)^2` over batch, patches, channels; with `unit` the mean over patches of `|u(s) - u(t)|^2`.

    Scalar; 0 at a perfect match; with `unit` at most 4. No gradient reaches `t`.
    """
    t_BPD = t_BPD.detach()
    if normalise == "unit":
        difference = F.normalize(s_BPD, dim=2) - F.normalize(t_BPD, dim=2)
        return difference.square().sum(2).mean()
    return (s_BPD - t_BPD).square().mean()


class PatchRegression(Method[PatchRegressionConfig]):
    """Regression of the teacher's patches; see the head of this file."""

    name = "patch_regression"
    summary = "the teacher's patches, of its last maps, predicted from the student's, of mixed images"
    needs = frozenset({"teacher", "feature_maps"})
    views = 1
    presets: ClassVar[Presets] = {
        "paper": {
            "config": {
                "teacher_maps": 2,
                "projection_layers": 1,
                "projection_hidden": 2048,
                "normalise": "none",
                "mixup_alpha": 1.0,
            },
            **lightly_train("lars", lr=9.0, weight_decay=1e-6),
        },
        "digits": {"config": {}, **on_digits(lr=5e-3)},
    }
    small: ClassVar = {"projection_hidden": 24}

    def build(self) -> None:
        """Make the projection and the mixup; freeze what no loss reaches."""
        config, size = self.config, self.context.image_size
        self.check(config, with_student(self.context, self.student))
        maps = teacher_maps(self.teacher, size, config.teacher_maps)
        self.projection = Projection(
            self.student.map_channels,
            sum(one.shape[1] for one in maps),
            config.projection_layers,
            config.projection_hidden,
        )
        self.mixup = Mixup(config.mixup_alpha, self.context.seed)
        freeze_behind_map(self.student, size)

    @classmethod
    def mixes(cls, config: PatchRegressionConfig) -> bool:
        """Unless `mixup_alpha` is 0."""
        return config.mixup_alpha > 0

    @classmethod
    def check(cls, config: PatchRegressionConfig, context: Context) -> None:
        """Refuse networks without a map, weights that would stay untrained, and more maps than there are."""
        check_maps(context)
        if context.student is not None and context.student.weights_after_map:
            raise UserError(
                "student.arch",
                "has weights behind its map that would stay untrained "
                f"({context.student.weights_after_map[0]}): this method trains the map alone",
                expected="another student, or method 'global_local' or 'global_patch'",
            )
        if context.teacher is not None and config.teacher_maps > len(context.teacher.stages):
            raise UserError(
                "config.teacher_maps",
                "is more than the stages that are told apart in this teacher",
                value=config.teacher_maps,
                expected=f"1 to {len(context.teacher.stages)}",
            )

    def forward(self, batch: Batch) -> Losses:
        """The regression of the mixed view's patches."""
        view = self.mixup(batch.views[0])
        maps = self.teacher.features_and_last_maps(view, self.config.teacher_maps)[1]
        s = self.projection(self.student.with_last_maps(view)[1][-1])
        loss = patch_loss(*on_one_grid(s, joined_maps(maps), self.config.grid), self.config.normalise)
        return Losses(loss, {"patches": loss})
