"""Networks that turn images into features: timm's, torchvision's, and our own.

backbone = build_backbone(ModelSpec(arch="resnet18"), seed=0)
backbone(images)       # (B, feature_dim), what the model's own head would classify
backbone.map(images)   # (B, map_channels, h, w), the features before pooling
backbone.with_maps(images)  # features as above, and the map that each stage of the network gives
backbone.with_last_maps(images, 2)  # features as above, the map before pooling, and one before it
"""

from __future__ import annotations

import contextlib
import functools
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from trainables.core.errors import UserError, first_line
from trainables.networks import plugin_networks, torchvision_models
from trainables.networks.feed import Feed
from trainables.networks.stems import STEM
from trainables.networks.zoo import (
    CHANNELS,
    TORCHVISION,
    Stage,
    as_map,
    check_name,
    create,
    find_stages,
    plain_blocks,
    raw_features,
    watched,
    watched_features,
)
from trainables.spec.inputs import Inputs
from trainables.spec.trial import ModelSpec


@dataclass(frozen=True)
class BackboneFacts:
    """Facts of an architecture at one image size."""

    feature_dim: int
    map_channels: int  # 0 where there is no feature map
    map_size: int  # side of the feature map; 0 where there is none
    mean_pool: bool  # whether features are the mean of the map over its positions
    after_map: tuple[str, ...]  # parameters behind the map: used by the features alone
    weights_after_map: tuple[str, ...]  # those of them that are more than scales and shifts
    stages: tuple[tuple[int, int], ...] = ()  # channels and side of each map of `with_maps`, in its order
    spec: ModelSpec | None = None  # the architecture


class Backbone(nn.Module):
    """A classification network without its classifier.

    Its input are views, normalised by ImageNet's mean and deviation. After `feed` it converts them to what
    its weights were trained with. With the option `in_chans: 1` it sees their luminance.
    """

    def __init__(self, spec: ModelSpec, field: str = "student") -> None:
        super().__init__()
        self.arch = spec.arch
        self.options = dict(spec.options)
        self.field = field
        self.in_chans = _channels(spec)
        self.model = create(spec.arch, self.options, field)
        self.feed(spec.inputs)
        self.feature_dim, self.map_channels, self.stages = _shape(self.model, spec, field)

    def feed(self, inputs: Inputs) -> None:
        """Convert views to `inputs` from now on."""
        self.fed = Feed(inputs, self.in_chans)

    @property
    def inputs(self) -> Inputs:
        """What its model takes."""
        return self.fed.inputs

    @property
    def written(self) -> dict[str, str]:
        """What a file says about the network beside its weights: architecture, options, what it takes."""
        mean, std = self.pixels
        inputs: dict[str, Any] = {"mean": mean, "std": std, "channels": self.inputs.channels}
        inputs["interpolation"] = self.inputs.interpolation
        if self.inputs.crop_share is not None:
            inputs["crop_pct"] = self.inputs.crop_share
        options = json.dumps(self.options, sort_keys=True)
        said = {name: json.dumps(value) for name, value in inputs.items()}
        return {"arch": self.arch, "options": options, **said}

    @property
    def pixels(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """(mean, deviation) of the network's own input, a number for each of its channels."""
        normalisation = self.inputs.normalisation
        if self.in_chans == 1:
            mean, std = normalisation.grey
            return (mean,), (std,)
        return normalisation.mean, normalisation.std

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, feature_dim), pooled by the model's own head."""
        features: Tensor = self.model(self.fed(images))
        return features

    def map(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, map_channels, h, w), before pooling.

        Tokens of a transformer are placed as the image's patches; class tokens are left out. Raises
        `UserError` for an architecture without a single map.
        """
        found = as_map(self.model, raw_features(self.model, self.fed(images)))
        if found is None:
            raise UserError(f"{self.field}.arch", "has no single feature map", value=self.arch)
        return found

    def with_maps(self, images: Tensor) -> tuple[Tensor, list[Tensor]]:
        """(B, 3, H, W) -> features (B, feature_dim), and the maps (B, C, h, w) of up to four stages.

        One pass, with gradient. The features are those of `forward`; the maps go from shallow to deep, with
        the sizes of `facts(image_size).stages`. A map is the output of the stage's module: after the last
        activation in a residual network, before the final norm in a transformer, with tokens as in `map`. The
        last map differs from `map` in a network that widens it before pooling. Raises `UserError` for an
        architecture without such maps.
        """
        if not self.stages:
            raise UserError(f"{self.field}.arch", "has no feature maps", value=self.arch)
        with watched(self.model, [stage.module for stage in self.stages]) as seen:
            features: Tensor = self.model(self.fed(images))
        maps = [as_map(self.model, seen[stage.module], stage.channels) for stage in self.stages]
        if any(one is None for one in maps):
            raise UserError(f"{self.field}.arch", "has no feature maps at this image size", value=self.arch)
        return features, [one for one in maps if one is not None]

    def with_last_maps(self, images: Tensor, count: int = 1) -> tuple[Tensor, list[Tensor]]:
        """(B, 3, H, W) -> features (B, feature_dim), and the last `count` maps (B, C, h, w), deepest last.

        One pass, with gradient. The deepest map is that of `map`. Before it come, in a plain vision
        transformer of timm, the maps of the blocks before its last one, each through the network's final norm
        (DINOv2's intermediate layers); in any other network those of the stages before its last one, as
        `with_maps` gives them. Raises `UserError` for an architecture without so many maps.
        """
        blocks, earlier = plain_blocks(self.model), count - 1
        names = blocks[:-1] or [stage.module for stage in self.stages[:-1]]
        if earlier > len(names):
            raise UserError(
                f"{self.field}.arch", f"has {len(names) + 1} maps, and {count} are asked for", value=self.arch
            )
        names = names[len(names) - earlier :]
        with watched(self.model, names) as seen, watched_features(self.model) as last:
            features: Tensor = self.model(self.fed(images))
        channels = {stage.module: stage.channels for stage in self.stages}
        maps = [
            as_map(self.model, self.model.get_submodule("norm")(seen[name]))
            if blocks
            else as_map(self.model, seen[name], channels[name])
            for name in names
        ]
        maps.append(as_map(self.model, last[0]))
        if any(one is None for one in maps):
            raise UserError(f"{self.field}.arch", "has no single feature map", value=self.arch)
        return features, [one for one in maps if one is not None]

    def map_size(self, image_size: int) -> int:
        """Side of the feature map for images with sides of `image_size` pixels."""
        return self.facts(image_size).map_size

    def facts(self, image_size: int) -> BackboneFacts:
        """The facts at this size of its model's images. Raises `UserError` for images that it cannot take."""
        made_for = getattr(self.model, "side", image_size)
        if made_for != image_size:
            raise UserError(
                f"{self.field}.options.side",
                f"{self.arch} is made for images of {made_for} px, and they have {image_size}",
                value=made_for,
                expected=f"{image_size}, as data.image_size",
            )
        images = noise(image_size, self.in_chans).to(next(self.parameters()).device)
        spec = ModelSpec(arch=self.arch, options=self.options)
        with evaluating(self.model), torch.enable_grad():
            try:
                with watched(self.model, [stage.module for stage in self.stages]) as seen:
                    features = self.model(images)
            except Exception as error:
                raise UserError(
                    f"{self.field}.arch",
                    f"cannot take images of {image_size} px ({first_line(error)})",
                    value=self.arch,
                    expected=self._other_size(),
                ) from None
            maps = [as_map(self.model, seen[stage.module], stage.channels) for stage in self.stages]
            stages = tuple((one.shape[1], one.shape[2]) for one in maps if one is not None)
            found = as_map(self.model, raw_features(self.model, images))
            if found is None:
                return BackboneFacts(features.shape[1], 0, 0, False, (), (), stages, spec)
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
            stages=stages,
            spec=spec,
        )

    def _other_size(self) -> str:
        """What helps where the model cannot take the images."""
        if self.field != "teacher":
            return "another architecture or data.image_size, or options such as `img_size`"
        known = (getattr(self.model, "pretrained_cfg", None) or {}).get("input_size", ())
        return (
            f"`teacher: {{image_size: {known[-1] if known else 'N'}}}`, which shows it views of a size of "
            "its own, or another architecture or data.image_size"
        )


def _channels(spec: ModelSpec) -> int:
    """Channels of a network's input; a wrong number is refused where the network is built."""
    return 1 if spec.options.get(CHANNELS) == 1 else 3


def build_backbone(spec: ModelSpec, seed: int | None = None, field: str = "student") -> Backbone:
    """A randomly initialised backbone. The same `seed` gives the same bits; global generators do not change.

    Raises `UserError` at `field` for an unknown architecture or option.
    """
    if seed is None:
        return Backbone(spec, field)
    with seeded(seed):
        return Backbone(spec, field)


def noise(image_size: int, channels: int = 3) -> Tensor:
    """Two images (2, channels, H, W) of random values in 0..1, always the same ones."""
    return torch.rand(2, channels, image_size, image_size, generator=torch.Generator().manual_seed(0))


@contextlib.contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Modules built inside are initialised from `seed`; the global generators are restored afterwards."""
    with torch.random.fork_rng(devices=[]):
        # Not torch.manual_seed: that would also reseed the GPUs, which fork_rng was told to leave alone.
        torch.default_generator.manual_seed(seed)
        yield


@functools.lru_cache(maxsize=64)
def backbone_facts(spec: ModelSpec, image_size: int, field: str = "student") -> BackboneFacts:
    """`Backbone.facts` of an architecture, cached; for checks before anything starts."""
    return build_backbone(spec, 0, field).facts(image_size)


def check_arch(arch: str, field: str, options: Mapping[str, Any] | None = None) -> None:
    """Raise `UserError` with the nearest name for an unknown architecture or option.

    `field` is the section of the spec (`student`).
    """
    check_name(arch, field)
    if options:
        _check_options(ModelSpec(arch=arch, options=dict(options)), field)


@functools.lru_cache(maxsize=64)
def _check_options(spec: ModelSpec, field: str) -> None:
    with seeded(0):
        create(spec.arch, spec.options, field)


def classifier_prefixes(backbone: Backbone) -> tuple[str, ...]:
    """The prefixes of the names of the classifier's weights, which a backbone does not have."""
    if backbone.arch.startswith(TORCHVISION):
        layout = torchvision_models.layout(backbone.model)
        return (f"{layout.classifier}.",) if layout else ()
    names = (getattr(backbone.model, "pretrained_cfg", None) or {}).get("classifier") or ()
    return tuple(f"{name}." for name in ([names] if isinstance(names, str) else names))


_known_shapes: dict[ModelSpec, tuple[int, int, tuple[Stage, ...]]] = {}


def _shape(model: nn.Module, spec: ModelSpec, field: str) -> tuple[int, int, tuple[Stage, ...]]:
    """(feature_dim, map_channels, stages), from a pass at the architecture's own image size."""
    if spec not in _known_shapes:
        side = (getattr(model, "pretrained_cfg", None) or {}).get("input_size", (3, 224, 224))[-1]
        given = spec.options.get("img_size", spec.options.get("image_size", side))
        side = given if isinstance(given, int) else given[-1]
        if STEM in spec.options:
            side = -(-side // 4)  # with such a stem the maps are then as large as usual
        if plugin_networks.place_of(spec.arch) is not None:
            side = getattr(model, "side", side)
            _try_out(model, spec.arch, side, field)
        images = torch.zeros(1, _channels(spec), side, side)
        with evaluating(model), torch.no_grad():
            found = as_map(model, raw_features(model, images))
            features, stages = find_stages(model, images)
        _known_shapes[spec] = features.shape[1], 0 if found is None else found.shape[1], stages
    return _known_shapes[spec]


def _try_out(model: nn.Module, arch: str, side: int, field: str) -> None:
    """Raise `UserError` where a user's network does not turn images into features."""
    try:
        with evaluating(model), torch.no_grad():
            features = model(torch.zeros(2, 3, side, side))
    except Exception as error:
        raise UserError(
            f"{field}.arch",
            f"cannot take images of {side} px ({type(error).__name__}: {first_line(error)})",
            value=arch,
            expected="a network for images of any size, or one whose attribute `side` says which",
        ) from None
    plugin_networks.check_features(arch, features, field)


@contextlib.contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Eval mode inside, so that a pass for shapes changes no batch statistics and draws no dropout."""
    before = {module: module.training for module in model.modules()}
    model.eval()
    try:
        yield
    finally:
        for module, training in before.items():
            module.training = training
