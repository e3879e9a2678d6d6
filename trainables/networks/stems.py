"""Stems for small images: option `stem` of a student or teacher, beside its architecture's own options.

    student: {arch: resnet18, options: {stem: small}}

A stem for images of 224 px reduces a 32 px image too much. `small` makes the first convolution 3x3 with
stride 1 and removes the pooling behind it: every map is 2 or 4 times as large. Other layers do not change.
`small_padding2` pads that convolution by 2 instead of 1, as solo-learn does for CIFAR.
"""

from __future__ import annotations

from typing import Any

import timm
import torch
import torchvision
from timm.layers import Conv2dSame
from torch import nn

from trainables.core.errors import UserError

STEM = "stem"
_PADDING = {"small": 1, "small_padding2": 2}
_timm: Any = timm.models
_torchvision: Any = torchvision.models
# Family -> the pooling behind its stem; "": none.
_POOLS: dict[type[nn.Module], str] = {
    **dict.fromkeys((_timm.resnet.ResNet, _torchvision.ResNet, _torchvision.ShuffleNetV2), "maxpool"),
    **dict.fromkeys((_timm.densenet.DenseNet, _torchvision.DenseNet), "features.pool0"),
    **dict.fromkeys((_timm.efficientnet.EfficientNet, _timm.mobilenetv3.MobileNetV3), ""),
    **dict.fromkeys((_timm.ghostnet.GhostNet, _timm.regnet.RegNet), ""),
    **dict.fromkeys((_torchvision.EfficientNet, _torchvision.MobileNetV2, _torchvision.MobileNetV3), ""),
    **dict.fromkeys((_torchvision.MNASNet, _torchvision.RegNet), ""),
}
FAMILIES = (
    "ResNet (ResNeXt, wide, SE), DenseNet, EfficientNet, MobileNet v1 to v4, MNASNet, GhostNet, RegNet, "
    "torchvision's ShuffleNet"
)


def check_stem(stem: object, arch: str, field: str) -> None:
    """Raise `UserError` for an unknown stem, and for one of raykd's own small networks."""
    if not isinstance(stem, str) or stem not in _PADDING:
        raise UserError(f"{field}.options.{STEM}", "no such stem", value=stem, choices=_PADDING)
    if arch.startswith("raykd/"):
        raise UserError(
            f"{field}.options.{STEM}", f"{arch} is made for small images as it is", value=stem,
            expected="no `stem` here",
        )  # fmt: skip


def small_stem(model: nn.Module, stem: str) -> dict[str, nn.Module] | None:
    """Module name -> its replacement in `model`, which does not change; None: no such stem is possible.

    The new convolution has the middle of the old kernel, scaled by the ratio of the sides. Every family here
    draws weights with a variance of one over the number of inputs (or outputs); the new weights then have the
    right variance, too, and no random number is drawn.
    """
    pool = next((pool for family, pool in _POOLS.items() if isinstance(model, family)), None)
    first = next(((name, m) for name, m in model.named_modules() if isinstance(m, nn.Conv2d)), None)
    if pool is None or first is None:
        return None
    name, old = first
    side = old.kernel_size[0]
    if type(old) not in (nn.Conv2d, Conv2dSame) or old.groups != 1 or side not in (3, 5, 7):
        return None
    new = nn.utils.skip_init(
        nn.Conv2d, old.in_channels, old.out_channels, 3, padding=_PADDING[stem],
        bias=old.bias is not None, device=old.weight.device,
    )  # fmt: skip
    cut = side // 2 - 1
    with torch.no_grad():
        new.weight.copy_(old.weight[..., cut : cut + 3, cut : cut + 3] * (side / 3))
        if old.bias is not None and new.bias is not None:
            new.bias.copy_(old.bias)
    if not pool:
        return {name: new}
    if any(True for _ in model.get_submodule(pool).parameters()):
        return None  # a pooling with weights is not removed without a message
    return {name: new, pool: nn.Identity()}


def put_small_stem(model: nn.Module, stem: str, arch: str, field: str) -> None:
    """Put the stem into `model`. Raises `UserError` at `field`.options.stem for a family without one."""
    parts = small_stem(model, stem)
    if parts is None:
        tokens = "; a transformer's options `img_size` and `patch_size` let it take small images"
        raise UserError(
            f"{field}.options.{STEM}",
            f"{arch} has no stem that can be made smaller: a convolution, and a pooling without weights",
            value=stem,
            expected=f"one of these families: {FAMILIES}" + (tokens if hasattr(model, "patch_embed") else ""),
        )
    for name, part in parts.items():
        model.set_submodule(name, part)


def stem_lines(model: nn.Module) -> list[str]:
    """Lines of Python that put the small stem of `model` into a `model` without it."""
    pool = next(pool for family, pool in _POOLS.items() if isinstance(model, family))
    name = next(name for name, m in model.named_modules() if isinstance(m, nn.Conv2d))
    lines = [f'model.set_submodule("{name}", torch.nn.{model.get_submodule(name)})']
    return lines + ([f'model.set_submodule("{pool}", torch.nn.Identity())'] if pool else [])
