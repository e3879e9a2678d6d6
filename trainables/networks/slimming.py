"""A host network K times as wide as the student, of which the student is the leading slice.

    host = build_host(student, width=2.0, image_size=224)
    host(student, images)      # (B, K D): through all channels
    student(images)            # (B, D): through the first share of each layer's input and output channels

The student is a plain module that owns its weights. The host owns the rest and joins both for each pass, so
that the student's parameters get the gradients of both passes, and the student is saved as a plain model.
Each network has its own batch statistics ("switchable" batch normalisation); scales and shifts are shared.
The student is not a child module of the host.
"""

from __future__ import annotations

import copy
import functools
import math
from collections.abc import Mapping
from fractions import Fraction
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.modules.batchnorm import _BatchNorm

from trainables.core.errors import UserError, first_line
from trainables.networks.backbones import Backbone, build_backbone, noise, seeded
from trainables.networks.channel_groups import inputs_seen, largest_first
from trainables.spec.trial import ModelSpec

Slice = Literal["index", "l1_mask"]
_RIGHT, _BELOW = "/right", "/below"


class Layer(NamedTuple):
    """How a layer becomes wider."""

    counts: tuple[str, ...]  # the module's attributes that grow with the width
    columns: bool  # whether the weight grows along the second axis, too


class Host(nn.Module):
    """The part of the wide network beyond the student. Call it with the student that it was built around."""

    def __init__(
        self, student: Backbone, layers: Mapping[str, Layer], width: Fraction, whole: Mapping[str, Tensor]
    ) -> None:
        """`layers` grow by `width`; `whole` are the wide network's parameters, some of them the student's."""
        super().__init__()
        self.feature_dim = int(student.feature_dim * width)
        self.skeleton = _skeleton(student.model, layers, width)
        self.extra = nn.ParameterDict()
        self._divide(student.model, whole)

    def forward(self, student: Backbone, images: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, width D); the first D belong to the student's channels."""
        features: Tensor = functional_call(self.skeleton, self.weights(student), (student.fed(images),))
        return features

    def weights(self, student: Backbone) -> dict[str, Tensor]:
        """The wide network's parameters under the student's names; differentiable."""
        return {name: self._whole(name, p) for name, p in student.model.named_parameters()}

    def _whole(self, name: str, parameter: Tensor) -> Tensor:
        right, below = _keys(name)
        if right in self.extra:
            parameter = torch.cat([parameter, self.extra[right]], 1)
        return torch.cat([parameter, self.extra[below]], 0)

    @torch.no_grad()
    def _divide(self, model: nn.Module, whole: Mapping[str, Tensor]) -> None:
        """Give the student its part of the whole weights, and keep the rest."""
        for name, parameter in model.named_parameters():
            right, below = _keys(name)
            rows, columns = len(parameter), parameter.shape[1] if parameter.ndim > 1 else 0
            first = whole[name][:rows]
            if parameter.ndim > 1 and first.shape[1] > columns:
                self.extra[right] = nn.Parameter(first[:, columns:].clone())
                first = first[:, :columns]
            self.extra[below] = nn.Parameter(whole[name][rows:].clone())
            parameter.copy_(first)


def build_host(student: Backbone, width: float, image_size: int, slice: Slice = "index") -> Host:
    """A host around `student`, whose own parameters become, in place, part of the host's initial ones.

    Every layer has `width` times the student's inputs and outputs (an image keeps its channels), grouped
    and depthwise convolutions `width` times the groups. The initial weights are drawn from the values that
    the family's own initialisation gave the student's; weights with more inputs than the student's are
    divided by sqrt(width). `slice` says which of the host's channels are the student's: `index` the first,
    `l1_mask` those of the largest filters (`largest_first`). Draws from torch's global generator.

    Raises `UserError` for a width that leaves no whole channels and for a network that cannot be widened.
    """
    check_host(student, width, image_size, slice)
    images, exact = noise(image_size, student.in_chans), Fraction(str(width))
    layers = _layers(student, images)
    whole = _initial(student.model, layers, exact)
    if slice == "l1_mask":
        whole = largest_first(student, whole, images)
    return Host(student, layers, exact, whole)


def check_host(student: Backbone, width: float, image_size: int, slice: Slice = "index") -> None:
    """Raise `UserError` where `build_host` would, and where the student would not be a slice of the host.

    The second check runs a slightly wider host. The weights of the additional output channels are zero, the
    weights from them are not. The host must then return the student's features, and zeros beside them.
    """
    images = noise(image_size, student.in_chans)
    layers = _layers(student, images)
    modules = dict(student.model.named_modules())
    counts = [getattr(modules[name], count) for name, layer in layers.items() for count in layer.counts]
    unit = math.gcd(*counts)
    if (Fraction(str(width)) * unit).denominator != 1:
        raise UserError(
            "config.host_width",
            f"leaves no whole channels in {student.arch}, some of whose layers have {min(counts)}",
            value=width,
            expected="a whole number" + (f" or a multiple of 1/{unit}" if unit > 1 else ""),
        )
    try:
        kept = _keeps_channels(student, layers, 1 + Fraction(1, unit), noise(image_size))
    except RuntimeError as error:
        raise _cannot(student, first_line(error)) from None
    if not kept:
        raise _cannot(
            student, "its layers mix or regroup channels (norms over channels, concatenation, shuffling)"
        )
    if slice == "l1_mask":
        largest_first(student, dict(student.model.named_parameters()), images)


@functools.lru_cache(maxsize=64)
def check_host_of(spec: ModelSpec, width: float, image_size: int, slice: Slice) -> None:
    """`check_host` of an architecture, cached; for checks before anything starts."""
    check_host(build_backbone(spec, 0), width, image_size, slice)


def _layers(student: Backbone, images: Tensor) -> dict[str, Layer]:
    """Layer name -> how the layer becomes wider, for every layer with parameters or statistics."""
    seen = inputs_seen(student.model, images)
    layers = {}
    for name, module in student.model.named_modules():
        if isinstance(module, nn.Conv2d):
            inputs = () if seen.get(name) is images else ("in_channels",)
            groups = ("groups",) if module.groups > 1 else ()
            layers[name] = Layer(("out_channels", *inputs, *groups), bool(inputs) and not groups)
        elif isinstance(module, nn.Linear):
            layers[name] = Layer(("in_features", "out_features"), True)
        elif isinstance(module, _BatchNorm):
            layers[name] = Layer(("num_features",), False)
        elif [*module.parameters(recurse=False), *module.buffers(recurse=False)]:
            raise _cannot(student, f"it has a {type(module).__name__} ({name or 'the network itself'})")
    return layers


def _cannot(student: Backbone, why: str) -> UserError:
    return UserError(
        f"{student.field}.arch",
        f"cannot be the slice of a wider network: {why}",
        value=student.arch,
        expected="a network of convolutions, linear layers and batch norms (ResNet, MobileNet, "
        "EfficientNet), or config.host_width: 1",
    )


def _skeleton(model: nn.Module, layers: Mapping[str, Layer], width: Fraction) -> nn.Module:
    """A copy of the network with wider layers that have no parameters, and fresh statistics."""
    skeleton = copy.deepcopy(model)
    for name, module in skeleton.named_modules():
        if name not in layers:
            continue
        for count in layers[name].counts:
            setattr(module, count, int(getattr(module, count) * width))
        module.weight, module.bias = None, None
        if isinstance(module, _BatchNorm) and module.running_mean is not None:
            shape = (module.num_features,)
            module.running_mean = module.running_mean.new_zeros(shape)
            module.running_var = module.running_mean.new_ones(shape)
            module.reset_running_stats()
    return skeleton


@torch.no_grad()
def _initial(model: nn.Module, layers: Mapping[str, Layer], width: Fraction) -> dict[str, Tensor]:
    """Initial parameters of the wide network, the student's own in front."""
    whole = {}
    for full_name, own in model.named_parameters():
        name, _, kind = full_name.rpartition(".")
        columns = layers[name].columns and kind == "weight"
        shape = list(own.shape)
        shape[0] = int(shape[0] * width)
        shape[1:2] = [int(n * width) if columns else n for n in shape[1:2]]
        values = own.flatten()
        drawn = values[torch.randint(len(values), (math.prod(shape),))].view(shape)
        drawn[tuple(slice(n) for n in own.shape)] = own
        whole[full_name] = drawn / math.sqrt(width) if columns else drawn
    return whole


@torch.no_grad()
def _keeps_channels(student: Backbone, layers: Mapping[str, Layer], width: Fraction, images: Tensor) -> bool:
    """Whether a host whose additional channels are zero returns the student's features, and zeros beside."""
    plain = copy.deepcopy(student).eval()
    with seeded(0):
        for parameter in plain.model.parameters():
            if parameter.ndim == 1:  # a scale of 0 would hide a branch, a shift of 0 a missing one
                parameter.uniform_(0.5, 1.5)
        host = Host(plain, layers, width, _initial(plain.model, layers, width)).eval()
    for name, parameter in host.extra.items():
        if name.endswith(_BELOW):
            parameter.zero_()
    expected, found = plain(images), host(plain, images)
    own = found[:, : expected.shape[1]]
    close = (own - expected).abs().max() <= 1e-3 * expected.abs().max()
    return found.shape[1] == host.feature_dim and bool(close) and not found[:, expected.shape[1] :].any()


def _keys(name: str) -> tuple[str, str]:
    """Keys of the columns right of a student's parameter and of the rows below it, without dots."""
    key = name.replace(".", "/")
    return key + _RIGHT, key + _BELOW
