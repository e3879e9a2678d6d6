"""Adapters from a student's features to the input of a teacher's head. RETRO trains one.

Spatial adapters read the student's feature map and average over its positions at the end; the others read the
pooled features. s is the student's width, t the teacher's feature dimension.

RETRO's published training builds two of them (`beandkay/Reused-Teacher-Projector`,
`DisCo/moco/builder_kq_mse_largeembedding_2048.py`), both on the map:
`bottleneck`  for a ResNet-50, -101 or -152 as student
`mbconv`      for every other student: hard mish in a MobileNet-v3, SiLU elsewhere; a residual connection
              where s = t
The published linear evaluation differs: hard swish for MobileNet-v3, the bottleneck for ResNet-18 and -34.
The other adapters are not in the published code. There the `mbconv` of a MobileNet-v3 follows the layer that
widens the pooled features, on a map of 1x1.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from timm.layers.create_act import create_act_layer
from torch import Tensor, nn

from trainables.networks.backbones import Backbone

Activation = Literal["published", "silu", "hard_mish", "hard_swish"]


class Adapter(nn.Module):
    """Images through a student and `layers`: (B, 3, H, W) -> (B, t)."""

    def __init__(self, layers: nn.Module, spatial: bool) -> None:
        super().__init__()
        self.layers = layers
        self.spatial = spatial

    def forward(self, student: Backbone, images: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, t)."""
        if self.spatial:
            pooled: Tensor = self.layers(student.map(images)).mean((2, 3))
            return pooled
        adapted: Tensor = self.layers(student(images))
        return adapted


def build_adapter(
    kind: str, student: Backbone, out_dim: int, activation: Activation = "published"
) -> Adapter:
    """The adapter `kind` (one of `FLAT` or `SPATIAL`) from the width of `student` to `out_dim`.

    `activation` is that of `mbconv`; `published`: the published one of the student's family.
    """
    if kind in FLAT:
        return Adapter(FLAT[kind](student.feature_dim, out_dim), spatial=False)
    if kind == "mbconv":
        name = published_activation(student.arch) if activation == "published" else activation
        return Adapter(_mbconv(student.map_channels, out_dim, name), spatial=True)
    return Adapter(SPATIAL[kind](student.map_channels, out_dim), spatial=True)


def published_activation(arch: str) -> Activation:
    """The activation of `mbconv` in RETRO's published training of this student."""
    return "hard_mish" if "mobilenetv3" in arch.lower().replace("_", "") else "silu"


def _mlp(s: int, t: int) -> nn.Module:
    return nn.Sequential(nn.Linear(s, t), nn.ReLU(), nn.Linear(t, t))


def _conv_bn_act(s: int, t: int, side: int = 1, groups: int = 1, act: str = "relu") -> list[nn.Module]:
    convolution = nn.Conv2d(s, t, side, padding=side // 2, groups=groups, bias=False)
    return [convolution, nn.BatchNorm2d(t), nn.ReLU() if act == "relu" else create_act_layer(act)]


def _conv1x1_bn_act(s: int, t: int) -> nn.Module:
    return nn.Sequential(*_conv_bn_act(s, t))


def _conv1x1(s: int, t: int) -> nn.Module:
    return nn.Conv2d(s, t, 1)


def _bottleneck(s: int, t: int) -> nn.Module:
    half = max(1, t // 2)
    return nn.Sequential(*_conv_bn_act(s, half), *_conv_bn_act(half, half, 3), *_conv_bn_act(half, t))


class _Residual(nn.Module):
    def __init__(self, layers: nn.Module) -> None:
        super().__init__()
        self.layers = layers

    def forward(self, images: Tensor) -> Tensor:
        added: Tensor = images + self.layers(images)
        return added


def _mbconv(s: int, t: int, activation: str = "silu") -> nn.Module:
    wide, deep = _conv_bn_act(s, 2 * s, act=activation), _conv_bn_act(2 * s, 2 * s, 3, 2 * s, activation)
    layers = nn.Sequential(*wide, *deep, *_conv_bn_act(2 * s, t)[:2])
    return _Residual(layers) if s == t else layers


Build = Callable[[int, int], nn.Module]
FLAT: dict[str, Build] = {"linear": nn.Linear, "mlp": _mlp}
SPATIAL: dict[str, Build] = {
    "conv1x1": _conv1x1,
    "conv1x1_bn_act": _conv1x1_bn_act,
    "bottleneck": _bottleneck,
    "mbconv": _mbconv,
}
NEIGHBOURHOOD = ("bottleneck", "mbconv")  # adapters with a 3x3 convolution
