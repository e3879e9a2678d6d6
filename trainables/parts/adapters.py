"""Adapters: what makes a student's features fit a teacher's head. RETRO learns one.

`spatial` ones read the student's feature map and average over its positions afterwards; the others read the
pooled features. Here s is the student's width, t the teacher's feature dimension.
"""

from __future__ import annotations

from collections.abc import Callable

from timm.layers.create_act import create_act_layer
from torch import Tensor, nn

from trainables.backbones import Backbone


class Adapter(nn.Module):
    """Images through a student and `layers`: (B, 3, H, W) -> (B, t)."""

    def __init__(self, layers: nn.Module, spatial: bool) -> None:
        super().__init__()
        self.layers = layers
        self.spatial = spatial

    def forward(self, student: Backbone, images: Tensor) -> Tensor:
        if self.spatial:
            pooled: Tensor = self.layers(student.map(images)).mean((2, 3))
            return pooled
        adapted: Tensor = self.layers(student(images))
        return adapted


def build_adapter(kind: str, student: Backbone, out_dim: int) -> Adapter:
    """The adapter called `kind` (of `ADAPTERS`) from `student` to `out_dim`."""
    if kind in FLAT:
        return Adapter(FLAT[kind](student.feature_dim, out_dim), spatial=False)
    return Adapter(SPATIAL[kind](student.map_channels, out_dim), spatial=True)


def _mlp(s: int, t: int) -> nn.Module:
    return nn.Sequential(nn.Linear(s, t), nn.ReLU(), nn.Linear(t, t))


def _conv1x1_bn_act(s: int, t: int) -> nn.Module:
    return nn.Sequential(nn.Conv2d(s, t, 1, bias=False), nn.BatchNorm2d(t), nn.ReLU())


def _conv1x1(s: int, t: int) -> nn.Module:
    return nn.Conv2d(s, t, 1)


def _bottleneck(s: int, t: int) -> nn.Module:
    half = max(1, t // 2)
    return nn.Sequential(
        nn.Conv2d(s, half, 1, bias=False),
        nn.BatchNorm2d(half),
        nn.ReLU(),
        nn.Conv2d(half, half, 3, padding=1, bias=False),
        nn.BatchNorm2d(half),
        nn.ReLU(),
        nn.Conv2d(half, t, 1, bias=False),
        nn.BatchNorm2d(t),
        nn.ReLU(),
    )


def _mbconv(s: int, t: int) -> nn.Module:
    # Hard mish is what the published code activates with.
    return nn.Sequential(
        nn.Conv2d(s, 2 * s, 1, bias=False),
        nn.BatchNorm2d(2 * s),
        create_act_layer("hard_mish"),
        nn.Conv2d(2 * s, 2 * s, 3, padding=1, groups=2 * s, bias=False),
        nn.BatchNorm2d(2 * s),
        create_act_layer("hard_mish"),
        nn.Conv2d(2 * s, t, 1, bias=False),
        nn.BatchNorm2d(t),
    )


Build = Callable[[int, int], nn.Module]
FLAT: dict[str, Build] = {"linear": nn.Linear, "mlp": _mlp}
SPATIAL: dict[str, Build] = {
    "conv1x1": _conv1x1,
    "conv1x1_bn_act": _conv1x1_bn_act,
    "bottleneck": _bottleneck,
    "mbconv": _mbconv,
}
ADAPTERS = (*FLAT, *SPATIAL)
NEIGHBOURHOOD = ("bottleneck", "mbconv")  # those with a 3x3 convolution
