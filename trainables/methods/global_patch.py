"""Global and patch: two heads predict the teacher's feature of an image and its feature of each patch.

The recipe of agglomerative models: Ranzinger et al. 2024, "AM-RADIO: Agglomerative vision
foundation model" (arXiv 2312.06709), section 3. It goes from a ViT to a CNN as well as from a ViT to a ViT,
because the maps are compared on one grid.

    s = h(f(x))          t = f_T(x)                                               one view, shared
    S = r(H(F_s))        T = F_T                                                  patches, on one grid
    L_global = 1 - cos(s, t)                                                      mean over the batch
    L_patch  = a (1 - cos(S_i, T_i)) + b smooth_l1(S_i, T_i)                     mean over patches; a .9, b .1
    L = v L_global + w L_patch                                                    (v = w = 1)
    Several teachers: sum_i w_i L_i, each with heads of its own                   (w_i: `weight` of teacher i)

Smooth L1 is a mean over channels and quadratic below 1. It holds the lengths, which a cosine does not see. h
and H are MLPs with LayerNorm and GELU, each of its own. F are the maps before pooling; r is bilinear, to the
grid that `grid` says (`parts/patches.py` says why). f is what a network pools: the class token of a ViT that
has one, the mean of the map of a CNN.

With several teachers (`teacher: [..., ...]`) the losses are balanced as the paper does it, by equal weights,
or by `balance: adaloss`. The paper has several resolutions, too, and the width of its hidden layer is not
known to us. So preset `paper` has its loss, and the training of `global_local`, its competitor. Maps are too
large to be shared between trials.

    raykd run search_spaces/global_patch.yaml
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, cast

from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from trainables.core.numerics import in_float32
from trainables.methods.base import Batch, Context, Losses, Method, MethodConfig, Presets
from trainables.methods.parts.balance import Balance, Balancing
from trainables.methods.parts.patches import Grid, Projection, check_maps, on_one_grid
from trainables.methods.parts.recipes import lightly_train, on_digits
from trainables.networks.backbones import Backbone
from trainables.teachers.teacher import Teacher


class GlobalPatchConfig(MethodConfig):
    """Settings of global and patch features."""

    global_weight: float = Field(1.0, gt=0, description="v, of the distance of whole images")
    patch_weight: float = Field(1.0, gt=0, description="w, of the distance of patches")
    cosine_weight: float = Field(0.9, ge=0, description="a, of the cosine between patches")
    smooth_l1_weight: float = Field(0.1, ge=0, description="b, of smooth L1 between patches")
    projection_layers: int = Field(2, ge=1, description="of both heads; 1: linear")
    projection_hidden: int = Field(
        2048, ge=1, description="width of their hidden layers; unused by `projection_layers: 1`"
    )
    grid: Grid = "teacher"
    balance: Balancing = "none"


class Heads(nn.Module):
    """What predicts the features of a further teacher and of its patches."""

    def __init__(self, student: Backbone, teacher: Backbone, layers: int, hidden: int) -> None:
        super().__init__()
        self.projection = Projection(student.feature_dim, teacher.feature_dim, layers, hidden)
        self.patch_projection = Projection(student.map_channels, teacher.map_channels, layers, hidden)


@in_float32
def cosine_distance(s: Tensor, t: Tensor) -> Tensor:
    """`1 - cos` of the vectors in the last dimension, mean over all; 0 to 2. No gradient reaches `t`."""
    return 1 - F.cosine_similarity(s, t.detach(), dim=-1).mean()


@in_float32
def value_distance(s: Tensor, t: Tensor) -> Tensor:
    """Smooth L1, mean over all: `d^2 / 2` for `|d| < 1`, else `|d| - 1/2`. No gradient reaches `t`."""
    return F.smooth_l1_loss(s, t.detach())


class GlobalPatch(Method[GlobalPatchConfig]):
    """Features of images and of patches; see the head of this file."""

    name = "global_patch"
    summary = (
        "the teacher's feature of the image and of each patch, by two heads, on one grid (AM-RADIO's loss)"
    )
    needs = frozenset({"teacher", "feature_maps"})
    several_teachers = True
    views = 1
    presets: ClassVar[Presets] = {
        "paper": {
            "config": {
                "global_weight": 1.0,
                "patch_weight": 1.0,
                "cosine_weight": 0.9,
                "smooth_l1_weight": 0.1,
                "projection_layers": 2,
            },
            **lightly_train("adamw", lr=5e-4, weight_decay=1e-6),
        },
        "digits": {"config": {"projection_hidden": 256}, **on_digits(lr=5e-3)},
    }
    small: ClassVar = {"projection_hidden": 24}

    def build(self) -> None:
        """Make both heads of each teacher."""
        layers, hidden = self.config.projection_layers, self.config.projection_hidden
        backbone = self.teacher.backbone
        # Not `Heads` for the first teacher: checkpoints from before there were several have these names.
        self.projection = Projection(self.student.feature_dim, backbone.feature_dim, layers, hidden)
        self.patch_projection = Projection(self.student.map_channels, backbone.map_channels, layers, hidden)
        further = [Heads(self.student, one.backbone, layers, hidden) for one in self.teachers[1:]]
        self.further = nn.ModuleList(further)
        self.balance: Balance | None = None
        if further:
            self.balance = Balance([one.weight for one in self.teachers], self.config.balance)

    @classmethod
    def check(cls, config: GlobalPatchConfig, context: Context) -> None:
        """Refuse networks without a map."""
        check_maps(context)

    def forward(self, batch: Batch) -> Losses:
        """The weighted sum of the three distances, of every teacher."""
        (view,) = batch.views
        student = self.student.with_last_maps(view)
        losses: list[Tensor] = []
        terms: dict[str, Tensor] = {}
        for at, (teacher, heads) in enumerate(zip(self.teachers, [self, *self.further], strict=True)):
            found = self._terms(student, teacher, cast(Heads, heads), self.shown(batch, at)[0])
            losses.append(self._weighted(found))
            suffix = f"_{at + 1}" if self.balance else ""
            terms |= {f"{name}{suffix}": term for name, term in found.items()}
        return Losses(losses[0] if self.balance is None else self.balance(losses), terms)

    def after_step(self, fraction: float) -> None:
        """Move the averages of `balance: adaloss`."""
        if self.balance is not None:
            self.balance.advance()

    def _terms(
        self, student: tuple[Tensor, list[Tensor]], teacher: Teacher, heads: Heads, view: Tensor
    ) -> dict[str, Tensor]:
        s_features, (s_map,) = student
        t_features, (t_map,) = teacher.features_and_last_maps(view)
        patches = on_one_grid(heads.patch_projection(s_map), t_map, self.config.grid)
        return {
            "global": cosine_distance(heads.projection(s_features), t_features),
            "patch_cosine": cosine_distance(*patches),
            "patch_smooth_l1": value_distance(*patches),
        }

    def _weighted(self, terms: Mapping[str, Tensor]) -> Tensor:
        config = self.config
        patch = (
            config.cosine_weight * terms["patch_cosine"] + config.smooth_l1_weight * terms["patch_smooth_l1"]
        )
        return config.global_weight * terms["global"] + config.patch_weight * patch
