"""torchvision's networks, which share no base class: the modules that hold their classifiers and maps."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import torchvision
from torch import nn

from trainables.core.errors import UserError

zoo: Any = torchvision.models  # its names are gathered by star imports, which mypy does not follow


class Layout(NamedTuple):
    """Names of modules in the networks of a family."""

    classifier: str
    map: str  # its output is the map, or the tokens, before pooling
    stages: str = ""  # its children are the stages; "": the network's own children


_FEATURES = Layout("classifier", "features", "features")
_LAYOUTS: dict[type[nn.Module], Layout] = {
    **dict.fromkeys((zoo.AlexNet, zoo.VGG, zoo.DenseNet, zoo.ConvNeXt, zoo.SqueezeNet), _FEATURES),
    **dict.fromkeys((zoo.MobileNetV2, zoo.MobileNetV3, zoo.EfficientNet), _FEATURES),
    zoo.ResNet: Layout("fc", "layer4"),
    zoo.ShuffleNetV2: Layout("fc", "conv5"),
    zoo.GoogLeNet: Layout("fc", "inception5b"),
    zoo.Inception3: Layout("fc", "Mixed_7c"),
    zoo.RegNet: Layout("fc", "trunk_output", "trunk_output"),
    zoo.MNASNet: Layout("classifier", "layers", "layers"),
    zoo.SwinTransformer: Layout("head", "norm", "features"),
    zoo.VisionTransformer: Layout("heads", "encoder", "encoder.layers"),
}
# Two with auxiliary classifiers, which warn about their initialisation without `init_weights`.
_TOLD = {name: {"aux_logits": False, "init_weights": True} for name in ("googlenet", "inception_v3")}


def names() -> list[str]:
    """Every classification network of torchvision."""
    known: list[str] = zoo.list_models(module=zoo)
    return known


def arguments(name: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """The constructor's arguments for a user's options."""
    return {**_TOLD.get(name, {}), **options}


def layout(model: nn.Module) -> Layout | None:
    """The layout of a model of torchvision; None for other models."""
    return next((found for family, found in _LAYOUTS.items() if isinstance(model, family)), None)


def create(name: str, options: Mapping[str, Any], field: str) -> nn.Module:
    """The network without its classifier: (B, 3, H, W) -> features (B, D). Raises `UserError` at `field`."""
    model: nn.Module = zoo.get_model(name, weights=None, **arguments(name, options))
    found = layout(model)
    if found is None:
        raise UserError(
            f"{field}.arch",
            "where this torchvision model has its features is not known here",
            value=f"torchvision/{name}",
            expected="another one, or the timm model of that family",
        )
    # SqueezeNet pools in its classifier, and some others flatten there.
    nothing = nn.AdaptiveAvgPool2d(1) if isinstance(model, zoo.SqueezeNet) else nn.Flatten(1)
    model.set_submodule(found.classifier, nothing)
    if isinstance(model, zoo.SwinTransformer):
        model.output_fmt = "NHWC"  # as timm says it of its own
    return model


def stage_candidates(model: nn.Module, found: Layout) -> list[str]:
    """Names of modules whose outputs may be the maps of stages, in order."""
    children = [name for name, _ in model.get_submodule(found.stages).named_children()]
    if found.stages:
        return [f"{found.stages}.{name}" for name in children]
    return children[: children.index(found.map) + 1]
