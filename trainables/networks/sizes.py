"""The size of a network, found on torch's meta device, where tensors have shapes and no numbers."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from trainables.core.errors import UserError, first_line
from trainables.networks import small_networks
from trainables.networks.backbones import build_backbone
from trainables.networks.stems import small_stem
from trainables.networks.zoo import CHANNELS, RAYKD, as_map, create, raw_features
from trainables.spec.trial import ModelSpec


class NetworkSize(NamedTuple):
    """The size of a backbone without classifier, for images of one size."""

    parameters: int
    multiply_adds: int  # of the forward pass of one image: matrix products and convolutions
    features: int
    map_size: int  # side of the map before pooling; 0 where there is none
    small_stem: bool  # whether `stem: small` is possible
    options: dict[str, Any]  # options that it needs for such images


def network_size(arch: str, image_size: int) -> NetworkSize:
    """The size of `arch` for images of `image_size` px; where it has an option for the image size, it is set.

    Raises `UserError` at `student.arch` for an unknown name and for a network that cannot take such images.
    """
    name = arch.removeprefix(RAYKD)
    if arch.startswith(RAYKD) and name in small_networks.NETWORKS:
        told = "side" in small_networks.NETWORKS[name].options.model_fields
        return _measured(arch, {"side": image_size} if told else {}, image_size)
    try:
        return _measured(arch, {}, image_size)
    except _Unfit as error:
        for option in ("img_size", "image_size"):  # timm's word, torchvision's
            with contextlib.suppress(_Unfit, UserError):
                return _measured(arch, {option: image_size}, image_size)
        problem = f"cannot take images of {image_size} px ({error})"
        raise UserError("student.arch", problem, value=arch) from None


class StudentSize(NamedTuple):
    """The size of a student as it is exported: its backbone, without classifier, head and adapters."""

    params: int  # trainable or not, buffers such as running means left out
    macs: int  # multiply-adds of the forward pass of one image: matrix products and convolutions


@functools.lru_cache(maxsize=4096)
def student_size(spec: ModelSpec, image_size: int) -> StudentSize:
    """The size of a student for images of `image_size` px. Computed once a network, without its weights.

    Multiply-adds are half the operations that torch's `FlopCounterMode` counts: sums, activations and
    normalisation are left out, as in published figures. Raises `UserError` at `student` for an unknown
    architecture or option, and for a network that cannot take such images.
    """
    try:
        with torch.device("meta"), torch.random.fork_rng(devices=[]):
            model = create(spec.arch, spec.options, "student").eval()
        if getattr(model, "side", image_size) == image_size:
            return _counted(model, spec, image_size, "meta")
    except UserError:
        raise
    except Exception:  # a network of the user's own may need numbers
        pass
    backbone = build_backbone(spec, 0).eval()
    backbone.facts(image_size)  # raises for what it cannot take, in the user's words
    return _counted(backbone.model, spec, image_size, "cpu")


def _counted(model: nn.Module, spec: ModelSpec, image_size: int, device: str) -> StudentSize:
    images = torch.zeros(2, spec.options.get(CHANNELS, 3), image_size, image_size, device=device)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model(images)
    counted = counter.get_total_flops() // 2 // len(images)
    return StudentSize(sum(p.numel() for p in model.parameters()), counted)


class _Unfit(Exception):
    """The network cannot take the images as it is."""


def _measured(arch: str, options: Mapping[str, Any], image_size: int) -> NetworkSize:
    with torch.device("meta"), torch.random.fork_rng(devices=[]):
        model = create(arch, options, "student").eval()
    images = torch.zeros(1, 3, image_size, image_size, device="meta")
    try:
        with torch.no_grad():
            with FlopCounterMode(display=False) as counter:
                features = model(images)
            found = as_map(model, raw_features(model, images))
    except Exception as error:
        raise _Unfit(first_line(error)) from None
    return NetworkSize(
        parameters=sum(p.numel() for p in model.parameters()),
        multiply_adds=counter.get_total_flops() // 2,
        features=features.shape[1],
        map_size=0 if found is None else found.shape[2],
        small_stem=small_stem(model, "small") is not None,
        options=dict(options),
    )
