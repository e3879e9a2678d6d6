"""Guessing a checkpoint's architecture from what the file claims and from names and shapes of its weights.

The candidates are the usual teachers and the architectures that the file names. They are built on torch's
meta device, which allocates no memory.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import timm
import torch
import torchvision
from torch import Tensor, nn

from trainables.networks import plugin_networks
from trainables.networks.stems import STEM
from trainables.networks.timm_names import timms_names
from trainables.networks.zoo import RAYKD, TORCHVISION
from trainables.spec.trial import ModelSpec
from trainables.teachers.pretrained.claims import known_name, named_by_path
from trainables.teachers.pretrained.read import CheckpointFacts, ReadCheckpoint
from trainables.teachers.pretrained.roles import attention_heads
from trainables.teachers.twins import Shapes, built, built_while, shapes_of, twins

_OWN_NAMES = (TORCHVISION, RAYKD)  # prefixes that no other library uses

# A weight that every architecture of a family has -> the family, the most usual architecture first.
_USUAL: Mapping[str, tuple[str, ...]] = {
    "layer1.0.conv1.weight": (
        "resnet50", "resnet18", "resnet34", "resnet101", "resnet152", "wide_resnet50_2", "wide_resnet101_2",
        "resnext50_32x4d", "resnet26",
    ),
    "blocks.0.attn.qkv.weight": (
        "vit_small_patch16_224", "vit_base_patch16_224", "vit_small_patch8_224", "vit_base_patch8_224",
        "vit_tiny_patch16_224", "vit_large_patch16_224", "vit_base_patch32_224",
        "deit_small_distilled_patch16_224", "deit_tiny_distilled_patch16_224",
        "deit_base_distilled_patch16_224", "vit_small_patch14_dinov2", "vit_base_patch14_dinov2",
        "vit_large_patch14_dinov2", "vit_small_patch14_reg4_dinov2", "vit_base_patch14_reg4_dinov2",
        "vit_large_patch14_reg4_dinov2", "vit_huge_patch14_224",
    ),
    "norm_pre.weight": (  # CLIP
        "vit_base_patch32_clip_224", "vit_base_patch16_clip_224", "vit_large_patch14_clip_224",
        "vit_huge_patch14_clip_224",
    ),
    "attn_pool.latent": (
        "vit_base_patch16_siglip_224", "vit_large_patch16_siglip_256", "vit_so400m_patch14_siglip_224",
        "vit_so400m_patch16_siglip_256", "vit_base_patch32_siglip_256",
    ),
    "conv_stem.weight": (
        "efficientnet_b0", "efficientnet_b1", "mobilenetv3_large_100", "mobilenetv3_small_100",
        "efficientnet_b2", "efficientnet_b3", "efficientnet_b4", "mobilenetv2_100",
    ),
    "stages.0.blocks.0.conv_dw.weight": ("convnext_tiny", "convnext_small", "convnext_base"),
    "layers.0.blocks.0.attn.qkv.weight": ("swin_tiny_patch4_window7_224", "swin_base_patch4_window7_224"),
    "features.0.0.weight": (
        "torchvision/mobilenet_v2", "torchvision/mobilenet_v3_large", "torchvision/mobilenet_v3_small",
        "torchvision/efficientnet_b0", "torchvision/convnext_tiny",
    ),
    "features.0.weight": ("torchvision/vgg16", "torchvision/alexnet", "torchvision/vgg19"),
    "features.conv0.weight": ("torchvision/densenet121", "torchvision/densenet169"),
}  # fmt: skip
# Likewise by names of the authors, which timm's own function renames.
_AUTHORS: Mapping[str, tuple[str, ...]] = {
    "storage_tokens": tuple(
        f"vit_{size}_patch16_dinov3{biased}"
        for size in ("small", "base", "large", "small_plus", "huge_plus", "7b")
        for biased in ("_qkvb", "")
        if size != "7b" or not biased
    ),
    "visual.class_embedding": _USUAL["norm_pre.weight"],
}
_PATCHES = "patch_embed.proj.weight"
_POSITIONS = "pos_embed"
COMPARED = "names and shapes"
_CLASSIFIERS = ("fc.", "classifier.")  # torchvision's


class Guess(NamedTuple):
    """An architecture that fits the weights in a file, and the evidence for it."""

    model: ModelSpec
    by: str  # the evidence, for messages: `names and shapes`


def guess_arch(read: ReadCheckpoint) -> ModelSpec | None:
    """The result of `guess` without its evidence."""
    return found.model if (found := guess(read)) else None


def guess(read: ReadCheckpoint) -> Guess | None:
    """The architecture whose weights have the names and shapes of those in the file; None if none fits.

    raykd's own files (teachers, exported students) and a `config.json` contain architecture and options, and
    both are trusted. A name in another file (`vit_small`) has another meaning in each library. It counts only
    if the weights fit it, and then comes before the usual architectures. The same holds for the file's path.
    """
    facts = read.facts
    # A file must not choose which code is imported and called: of such a network its user writes `arch`.
    named = bool(facts.arch) and plugin_networks.place_of(facts.arch or "") is None
    if facts.arch and named:
        claimed = ModelSpec(arch=facts.arch, options=dict(facts.options))
        if facts.configured:
            return Guess(claimed, "its config.json")
        if facts.origin.startswith("raykd") or facts.options or facts.arch.startswith(_OWN_NAMES):
            return Guess(claimed, COMPARED)
    usual = _first_fitting(read, _USUAL) or _first_renamed(read)
    for names, by in (
        ([known_name(facts.arch or "")], "its own word"),
        (named_by_path(facts.path), "the file's path"),
    ):
        for name in names:
            if usual is not None and name == usual.arch:
                return Guess(usual, COMPARED)
            if name is not None and (model := _first_fitting(read, {"": (name,)})) is not None:
                return Guess(model, by)
    return None if usual is None else Guess(usual, COMPARED)


def twins_remark(facts: CheckpointFacts, arch: str) -> str:
    """A warning that names the architectures a file may be instead of `arch`; empty if the file names one."""
    arch = arch.partition(".")[0]  # a tag names weights
    if facts.arch and known_name(facts.arch) == arch:
        return ""
    others = twins(arch)
    named = [name for name in named_by_path(facts.path) if name in (arch, *others)]
    if not others or named[:1] == [arch]:
        return ""
    if named:
        return (
            f"{facts.path.name} is read as {arch}, and its path says {named[0]}, whose weights have the same "
            f"names and shapes and which computes otherwise; if it is that one, set `arch: {named[0]}`"
        )
    return (
        f"{facts.path.name} is read as {arch} and does not say what it is. By the names and shapes of its "
        f"weights it may also be {_listed(others)}, which computes otherwise: set `arch` to what was trained"
    )


def stem_remark(facts: CheckpointFacts, model: ModelSpec) -> str:
    """A warning if the stem that `model` asks for may not be that of the file's network; else empty.

    The kernels of many families are 3x3 with any stem, and only the stride differs. A file seldom says it.
    """
    if STEM not in model.options or facts.options.get(STEM) == model.options[STEM]:
        return ""
    plain = built(model.arch) if timm.is_model(model.arch) else None
    first = next((m for m in plain.modules() if isinstance(m, nn.Conv2d)), None) if plain else None
    if first is None or first.kernel_size != (3, 3):
        return ""  # another shape, which would not have loaded
    return (
        f"{facts.path.name} does not say whether its network had `{STEM}: {model.options[STEM]}`: with the "
        "usual stem it sees images at half the size, and its weights were learned for that"
    )


def _listed(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} or {names[-1]}"


def _first_fitting(read: ReadCheckpoint, families: Mapping[str, Sequence[str]]) -> ModelSpec | None:
    """The first architecture, with its options, that fits the file's weights; None if none does.

    Of `families`, those are tried whose key is a weight in the file, or empty.
    """
    for given in read.backbones:
        for arch in (
            arch for mark, family in families.items() if not mark or mark in given for arch in family
        ):
            options = _fits(arch, given, read)
            if options is not None:
                return ModelSpec(arch=arch, options=options)
    return None


def _first_renamed(read: ReadCheckpoint) -> ModelSpec | None:
    """The first architecture whose weights are those of the file after timm has renamed them; or None."""
    for weights in (*read.backbones, read.weights):
        found = set(shapes_of(weights).values())
        for arch in (arch for mark, family in _AUTHORS.items() if mark in weights for arch in family):
            own = _shapes(arch, "{}")
            if own[_PATCHES] not in found:
                continue
            named = timms_names(built(arch), weights)
            if named is not None and _same(own, shapes_of(named)):
                return ModelSpec(arch=arch)
    return None


def _fits(arch: str, given: Mapping[str, Tensor], read: ReadCheckpoint) -> dict[str, Any] | None:
    """The options with which `arch` has exactly the weights `given`; None if there are none."""
    found = shapes_of(given)
    matrices = {shape for shape in found.values() if len(shape) == 2}
    if not (arch.startswith(TORCHVISION) or built_while(arch, lambda s: len(s) != 2 or s in matrices)):
        return None  # the first matrix excludes most; only positions and the stem may have another size
    own = dict(_shapes(arch, "{}"))
    options: dict[str, Any] = {}
    stem = own.get("conv1.weight")
    if stem is not None and found.get("conv1.weight") == (*stem[:2], 3, 3) != stem:
        padded = read.layout.small_stem_padding == 2
        options[STEM] = "small_padding2" if padded else "small"
        own["conv1.weight"] = found["conv1.weight"]
    if not _same(own, found, but=_POSITIONS):
        return None
    heads = attention_heads(read.layout, given)
    if heads is not None:
        options["num_heads"] = heads
    if own.get(_POSITIONS) != found.get(_POSITIONS):
        side = _image_side(found, own)
        if side is None or not _same(_shapes(arch, json.dumps({"img_size": side})), found):
            return None
        options["img_size"] = side
    return options


def _same(own: Shapes, found: Shapes, but: str = "") -> bool:
    """Whether both have equal names and shapes, apart from batch counters, classifiers and `but`'s shape.

    `found` may lack batch counters and may have a classifier that `own` lacks.
    """
    needed = {name: shape for name, shape in own.items() if not name.endswith("num_batches_tracked")}
    surplus = [n for n in found if n not in own and not n.startswith((*_CLASSIFIERS, "head."))]
    return not surplus and all(
        name in found and (name == but or found[name] == shape) for name, shape in needed.items()
    )


def _image_side(found: Shapes, own: Shapes) -> int | None:
    """Image side in pixels of a transformer's position embeddings; None if they form no square grid."""
    tokens = own[_POSITIONS][1]
    before = tokens - int(tokens**0.5) ** 2  # positions of class and register tokens
    grid = (found[_POSITIONS][1] - before) ** 0.5
    return int(grid) * found["patch_embed.proj.weight"][-1] if grid == int(grid) and grid > 0 else None


@functools.lru_cache(maxsize=128)
def _shapes(arch: str, options: str) -> Shapes:
    """Name -> shape of the backbone's weights, without the classifier. `options` is JSON."""
    arguments = json.loads(options)
    if not arch.startswith(TORCHVISION):
        return shapes_of(built(arch, **arguments).state_dict())
    zoo: Any = torchvision.models
    with torch.device("meta"):
        state = zoo.get_model(arch.removeprefix(TORCHVISION), weights=None, **arguments).state_dict()
    return {name: shape for name, shape in shapes_of(state).items() if not name.startswith(_CLASSIFIERS)}
