"""Networks that turn images into features: any timm model, and torchvision's of the usual layouts.

backbone = build_backbone(ModelSpec(arch="resnet18"), seed=0)
backbone(images)       # (B, feature_dim), what the model's own head would classify
backbone.map(images)   # (B, map_channels, h, w), the features before pooling
"""

from __future__ import annotations

import contextlib
import difflib
import functools
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import timm
import torch
import torchvision
from torch import Tensor, nn
from torch.nn import functional as F

from trainables.errors import UserError
from trainables.trial import ModelSpec

zoo: Any = torchvision.models  # its names are gathered by star imports, which mypy does not follow
_TORCHVISION = "torchvision/"
_OURS = ("num_classes", "pretrained", "in_chans", "weights", "checkpoint_path", "features_only")


@dataclass(frozen=True)
class BackboneFacts:
    """What can be known of an architecture at an image size without training it."""

    feature_dim: int
    map_channels: int  # 0 where there is no feature map
    map_size: int  # side of the feature map; 0 where there is none
    mean_pool: bool  # features are the plain mean of the map over its positions
    after_map: tuple[str, ...]  # parameters that features use and the map does not
    weights_after_map: tuple[str, ...]  # those of them that are more than scales and shifts


class Backbone(nn.Module):
    """A classification network without its classifier."""

    def __init__(self, spec: ModelSpec, field: str = "student") -> None:
        super().__init__()
        self.arch = spec.arch
        self.options = dict(spec.options)
        self.field = field
        self.model = _create(spec.arch, self.options, field)
        self.feature_dim, self.map_channels = _dims(self.model, spec.arch, _key(self.options))

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, feature_dim), pooled by the model's own head."""
        features: Tensor = self.model(images)
        return features

    def map(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, map_channels, h, w), before pooling.

        Tokens of a transformer are laid out as the patches of the image they came from, without class tokens.
        """
        found = _as_map(self.model, _raw_features(self.model, images))
        if found is None:
            raise UserError(f"{self.field}.arch", "has no single feature map", value=self.arch)
        return found

    def map_size(self, image_size: int) -> int:
        """Side of the feature map for images with sides of `image_size` pixels."""
        return self.facts(image_size).map_size

    def facts(self, image_size: int) -> BackboneFacts:
        """What the architecture is at this size. `UserError` where it cannot take images of this size."""
        images = torch.rand(2, 3, image_size, image_size, generator=torch.Generator().manual_seed(0))
        images = images.to(next(self.parameters()).device)
        with _evaluating(self.model), torch.enable_grad():
            try:
                features = self.model(images)
            except Exception as error:
                raise UserError(
                    f"{self.field}.arch",
                    f"cannot take images of {image_size} px ({_first_line(error)})",
                    value=self.arch,
                    expected="another architecture or data.image_size, or options such as `img_size`",
                ) from None
            found = _as_map(self.model, _raw_features(self.model, images))
            if found is None:
                return BackboneFacts(features.shape[1], 0, 0, False, (), ())
            mean = found.mean((2, 3))
            same = mean.shape == features.shape and torch.allclose(mean, features, rtol=1e-3, atol=1e-5)
            trained = {name: p for name, p in self.model.named_parameters() if p.requires_grad}
            grads = torch.autograd.grad(found.sum(), list(trained.values()), allow_unused=True)
        after = tuple(name for name, grad in zip(trained, grads, strict=True) if grad is None)
        return BackboneFacts(
            feature_dim=features.shape[1],
            map_channels=found.shape[1],
            map_size=found.shape[2],
            mean_pool=same,
            after_map=after,
            weights_after_map=tuple(name for name in after if trained[name].ndim > 1),
        )


def build_backbone(spec: ModelSpec, seed: int | None = None, field: str = "student") -> Backbone:
    """A randomly initialised backbone; the same `seed` gives the same bits, and no global generator moves.

    Raises `UserError` at `field` for an architecture or options that do not exist.
    """
    if seed is None:
        return Backbone(spec, field)
    with seeded(seed):
        return Backbone(spec, field)


@contextlib.contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Initialise what is built inside from `seed`, without a trace in the global generators."""
    with torch.random.fork_rng(devices=[]):
        # Not torch.manual_seed: that would also reseed the GPUs, which fork_rng was told to leave alone.
        torch.default_generator.manual_seed(seed)
        yield


def backbone_facts(spec: ModelSpec, image_size: int, field: str = "student") -> BackboneFacts:
    """`Backbone.facts` of an architecture, remembered; for checks before anything starts."""
    return _remembered_facts(spec.arch, _key(spec.options), image_size, field)


@functools.lru_cache(maxsize=64)
def _remembered_facts(arch: str, options: str, image_size: int, field: str) -> BackboneFacts:
    return build_backbone(ModelSpec(arch=arch, options=json.loads(options)), 0, field).facts(image_size)


def check_arch(arch: str, field: str, options: Mapping[str, Any] | None = None) -> None:
    """Raise `UserError` with the nearest name where there is no such architecture, or it lacks an option.

    `field` is the section it is written in (`student`).
    """
    _check_name(arch, field)
    if options:
        _remembered_check(arch, _key(options), field)


@functools.lru_cache(maxsize=64)
def _remembered_check(arch: str, options: str, field: str) -> None:
    with seeded(0):
        _create(arch, json.loads(options), field)


def classifier_prefixes(backbone: Backbone) -> tuple[str, ...]:
    """How the names of the classifier's weights begin, which a backbone leaves out."""
    if backbone.arch.startswith(_TORCHVISION):
        return ("fc.", "classifier.")
    names = (getattr(backbone.model, "pretrained_cfg", None) or {}).get("classifier") or ()
    return tuple(f"{name}." for name in ([names] if isinstance(names, str) else names))


# --- how the libraries' models are made and read ----------------------------------------------------------


def _create(arch: str, options: Mapping[str, Any], field: str) -> nn.Module:
    _check_name(arch, field)
    for name in options:
        if name in _OURS:
            raise UserError(f"{field}.options.{name}", "is raykd's own to set", value=options[name])
    try:
        if arch.startswith(_TORCHVISION):
            return _without_classifier(
                zoo.get_model(arch.removeprefix(_TORCHVISION), weights=None, **options), arch, field
            )
        return timm.create_model(arch, pretrained=False, num_classes=0, **options)
    except UserError:
        raise
    except Exception as error:
        where = f"{field}.options" if options else f"{field}.arch"
        raise UserError(
            where, f"{arch} cannot be built: {_first_line(error)}", value=dict(options) or arch
        ) from None


def _check_name(arch: str, field: str) -> None:
    if arch.startswith(_TORCHVISION):
        known, name, prefix = zoo.list_models(module=zoo), arch.removeprefix(_TORCHVISION), _TORCHVISION
        if name in known:
            return
    else:
        known, name, prefix = timm.list_models(), arch, ""
        if timm.is_model(arch):
            return
    near = difflib.get_close_matches(name.lower(), known, n=3, cutoff=0.5)
    raise UserError(
        f"{field}.arch",
        "no such architecture",
        value=arch,
        expected="a timm model name, or torchvision/NAME"
        + (f"; the nearest: {', '.join(prefix + n for n in near)}" if near else ""),
    )


def _without_classifier(model: nn.Module, arch: str, field: str) -> nn.Module:
    """torchvision's model with its classifier replaced by nothing, so that calling it gives features."""
    if _is_resnet(model):
        model.fc = nn.Flatten(1)
    elif _is_features(model):
        model.classifier = nn.Flatten(1)  # which some families do in their classifier
    else:
        raise UserError(
            f"{field}.arch",
            "this torchvision model has neither the `features` nor the resnet layout",
            value=arch,
            expected="another one, or the timm model of that family",
        )
    return model


def _is_resnet(model: nn.Module) -> bool:
    return all(hasattr(model, name) for name in ("conv1", "layer4", "avgpool", "fc"))


def _is_features(model: nn.Module) -> bool:
    pools_itself = isinstance(model, zoo.MobileNetV2 | zoo.DenseNet)  # without a module for it
    return all(hasattr(model, name) for name in ("features", "classifier")) and (
        hasattr(model, "avgpool") or pools_itself
    )


def _raw_features(model: nn.Module, images: Tensor) -> Any:
    """What the model computes before it pools, in its own layout."""
    timms = getattr(model, "forward_features", None)
    if timms is not None:
        return timms(images)
    if _is_resnet(model):
        for name in ("conv1", "bn1", "relu", "maxpool", "layer1", "layer2", "layer3", "layer4"):
            images = model.get_submodule(name)(images)
        return images
    features = model.get_submodule("features")(images)
    return F.relu(features) if isinstance(model, zoo.DenseNet) else features


def _as_map(model: nn.Module, raw: Any) -> Tensor | None:
    """Features in the model's own layout -> (B, C, h, w); None where they are no single map."""
    if not isinstance(raw, Tensor):
        return None
    if raw.ndim == 4:
        channels = getattr(model, "num_features", raw.shape[1])
        last = getattr(model, "output_fmt", "") == "NHWC" or raw.shape[1] != channels == raw.shape[3]
        return raw.permute(0, 3, 1, 2) if last else raw
    if raw.ndim != 3:
        return None
    tokens = raw.shape[1]
    side = int(tokens**0.5)
    prefix = getattr(model, "num_prefix_tokens", tokens - side * side)  # class tokens come first
    side = int((tokens - prefix) ** 0.5)
    if side == 0 or side * side != tokens - prefix:
        return None
    return raw[:, prefix:].transpose(1, 2).reshape(len(raw), raw.shape[2], side, side)


_known_dims: dict[tuple[str, str], tuple[int, int]] = {}


def _dims(model: nn.Module, arch: str, options: str) -> tuple[int, int]:
    """(feature_dim, map_channels), from one run at the size the architecture is made for."""
    if (arch, options) not in _known_dims:
        side = (getattr(model, "pretrained_cfg", None) or {}).get("input_size", (3, 224, 224))[-1]
        given = json.loads(options).get("img_size", side)
        side = given if isinstance(given, int) else given[-1]
        images = torch.zeros(1, 3, side, side)
        with _evaluating(model), torch.no_grad():
            found = _as_map(model, _raw_features(model, images))
            features = model(images)
        _known_dims[arch, options] = features.shape[1], 0 if found is None else found.shape[1]
    return _known_dims[arch, options]


@contextlib.contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    """Eval mode for a moment: a look at the shapes moves no batch statistics and draws no dropout."""
    before = {module: module.training for module in model.modules()}
    model.eval()
    try:
        yield
    finally:
        for module, training in before.items():
            module.training = training


def _key(options: Mapping[str, Any]) -> str:
    return json.dumps(options, sort_keys=True, default=str)


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
