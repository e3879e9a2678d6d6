"""A network for images of another size than its architecture is named for.

    sized(ModelSpec(arch="vit_small_patch14_dinov2"), 224)     # with options {img_size: 224}

Networks that take images of any size need nothing. Others are built with their option for it; their position
embeddings are resampled when weights of another size are loaded (`timm_names.timms_names`).
"""

from __future__ import annotations

import functools

import torch
from timm.layers import PatchEmbed
from torch import nn

from trainables.core.errors import UserError, first_line
from trainables.networks import plugin_networks
from trainables.networks.zoo import create
from trainables.spec.trial import ModelSpec, TeacherSpec

_OPTIONS = ("img_size", "image_size")  # timm's word, torchvision's
_SIDES = (*_OPTIONS, "side")  # and raykd's


def network_of(spec: TeacherSpec, field: str = "teacher") -> ModelSpec:
    """The network of a teacher, for the images that it sees. Raises `UserError` at `field`.image_size."""
    model = ModelSpec(arch=spec.arch, options=spec.options)
    return model if spec.image_size is None else sized(model, spec.image_size, field)


@functools.lru_cache(maxsize=64)
def sized(spec: ModelSpec, image_size: int, field: str = "teacher") -> ModelSpec:
    """The network of `spec` with the option that it needs for images of `image_size` pixels.

    Raises `UserError` at `field`.image_size for a size that the network cannot take, or that is not the one
    among its options.
    """
    where = f"{field}.image_size"
    for name in _SIDES:
        told = spec.options.get(name, image_size)
        if told not in (image_size, [image_size] * 2, (image_size,) * 2):
            problem, expected = (
                f"differs from `options: {{{name}: {told}}}`",
                f"one of the two: without {name}",
            )
            raise UserError(where, problem, value=image_size, expected=expected)
    if plugin_networks.place_of(spec.arch) is not None:  # its attribute `side` says more than we can find out
        return spec
    model = _on_meta(spec, field)
    patch = _patch(model)
    if image_size % patch:
        below, above = image_size // patch * patch, -(-image_size // patch) * patch
        raise UserError(
            where,
            f"{spec.arch} cuts images into patches of {patch} pixels, and this is no multiple",
            value=image_size,
            expected=" or ".join(str(size) for size in (below, above) if size),
        )
    if (refused := _refusal(model, image_size)) is None:
        return spec
    for name in _OPTIONS:
        other = ModelSpec(arch=spec.arch, options={**spec.options, name: image_size})
        try:
            built = _on_meta(other, field)
        except UserError:  # it has no such option, or not for this size
            continue
        if _refusal(built, image_size) is None:
            return other
    known = (getattr(model, "pretrained_cfg", None) or {}).get("input_size", ())
    raise UserError(
        where,
        f"{spec.arch} cannot take such images, and no option changes that ({refused})",
        value=image_size,
        expected=f"{known[-1]}, as it was trained on, or another network" if known else "another network",
    )


def _on_meta(spec: ModelSpec, field: str) -> nn.Module:
    with torch.device("meta"), torch.random.fork_rng(devices=[]):
        return create(spec.arch, spec.options, field).eval()


def _patch(model: nn.Module) -> int:
    """Side of a transformer's patches; 1 for networks that have none, or pad what is left."""
    embed = getattr(model, "patch_embed", None)
    if not isinstance(embed, PatchEmbed) or embed.dynamic_img_pad:
        return 1
    return int(embed.patch_size[0])


def _refusal(model: nn.Module, image_size: int) -> str | None:
    """Why the network cannot take images of this size; None: it can."""
    try:
        with torch.no_grad():
            model(torch.zeros(1, 3, image_size, image_size, device="meta"))
    except Exception as error:
        return first_line(error)
    return None
