"""Which mean and deviation a checkpoint's network takes pixels by: as the file, its origin or timm says.

    feeding("vit_small_patch16_224", read).normalisation      # what `teacher.mean` and `std` are filled with

In this order: the file itself (safetensors metadata, `config.json` of a hub folder, the arguments of its
training), its origin where that is known, timm's `pretrained_cfg` of the architecture, ImageNet's.
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import timm

from trainables.normalisation import IMAGENET, Normalisation, said
from trainables.zoo import RAYKD, TORCHVISION

if TYPE_CHECKING:
    from trainables.checkpoint_file import ReadCheckpoint

# As the hubs call weights. Beside others a `config.json` may be about anything.
_HUB_FILES = re.compile(r"((open_clip_)?(pytorch_)?model|open_clip_\w+)\.(safetensors|bin)")
_HUB_CONFIGS = {  # file -> (section, names of mean and deviation), the first that says both
    "config.json": (("pretrained_cfg", "mean", "std"), (None, "mean", "std")),  # timm's, now and of old
    "open_clip_config.json": (("preprocess_cfg", "mean", "std"),),
    "preprocessor_config.json": ((None, "image_mean", "image_std"),),
}
_SECTIONS = ("pretrained_cfg", "default_cfg", "args", "opt", "config", "hyper_parameters")
# Words in the names of files that their authors give away, all trained on ImageNet's.
_NAMED = re.compile(r"(?<![a-z])(dino(v2)?|ibot|mae|moco|msn|deit3?)(?![a-z])")
_DEFAULT = "default, since nothing says it"
_BY_ARCHITECTURE = "its architecture: give it with --arch NAME"
_CACHED = "models--timm--"  # how the hub's client names the folder of a timm model


class Said(NamedTuple):
    """What a file says of the pixels it was trained on."""

    normalisation: Normalisation
    by: str  # where it says so


class Feeding(NamedTuple):
    """How a teacher is fed, and why."""

    normalisation: Normalisation
    by: str  # who says so
    remark: str = ""  # what a user should know of it; may be empty
    sure: bool = True  # False: nothing says so, and there is reason to doubt it


def said_by_weights(path: Path, metadata: Mapping[str, str]) -> Said | None:
    """What a safetensors file or the configuration beside it says; None where neither does."""
    found = said(_json(metadata.get("mean")), _json(metadata.get("std")))
    if found is not None:
        return Said(found, "the file's metadata")
    # A student as a trial leaves it, or exported before its file said so.
    if {"trial", "score", "epoch"} <= metadata.keys() or {"arch", "options"} <= metadata.keys():
        return Said(IMAGENET, "raykd, which trained it")
    return said_beside(path)


def said_beside(path: Path) -> Said | None:
    """What the configuration of a hub's folder says of the weights at `path`; None where it does not."""
    if not _HUB_FILES.fullmatch(path.name):
        return None
    for name, places in _HUB_CONFIGS.items():
        try:
            config = json.loads(path.with_name(name).read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError):  # not there, or no such file: weights alone are read
            continue
        for section, mean, std in places:
            place = config if section is None or not isinstance(config, dict) else config.get(section)
            if isinstance(place, dict) and (found := said(place.get(mean), place.get(std))) is not None:
                return Said(found, f"{name} beside the file")
    return None


def said_by_training(content: Mapping[str, Any]) -> Said | None:
    """What a training script kept beside the weights, such as the arguments of timm's; None: nothing."""
    for name, place in (("", content), *((name, content.get(name)) for name in _SECTIONS)):
        values = vars(place) if isinstance(place, argparse.Namespace) else place
        if isinstance(values, Mapping):
            found = said(values.get("mean"), values.get("std"))
            if found is not None:
                return Said(found, f"`{name}` in the file" if name else "the file")
    return None


def feeding(arch: str | None, read: ReadCheckpoint) -> Feeding:
    """How the network in a file is fed, taken for one of architecture `arch` (None: not known)."""
    facts, layout = read.facts, read.layout
    if facts.pixels is not None:
        return Feeding(*facts.pixels)
    by_timm = None if arch is None else _of_architecture(arch)
    if layout.normalisation is not None:
        if layout.small_stem_normalisation and _small_stem(read):
            return _small(read)
        remark = ""
        if by_timm is not None and not by_timm.normalisation.like(layout.normalisation):
            remark = f"timm's own weights of {arch} take {by_timm.normalisation.text()}"
        if layout.origin.startswith(("a ", "an ")):  # it says which networks there are, not whose
            return Feeding(layout.normalisation, _DEFAULT, remark, sure=not remark)
        return Feeding(layout.normalisation, f"its origin, {facts.origin}", remark)
    if arch is None:
        return Feeding(IMAGENET, _BY_ARCHITECTURE, sure=False)
    if arch.startswith(TORCHVISION):
        return Feeding(IMAGENET, "torchvision, whose weights all take these")
    if "." not in arch:
        tagged = next((name for name in _names(read, arch) if timm.is_model_pretrained(name)), None)
        if tagged is not None and (found := _of_architecture(tagged)) is not None:
            return found
        if (word := _NAMED.search(facts.path.name.lower())) is not None:
            return Feeding(IMAGENET, f"its origin, {word[0]} by the file's name")
    return by_timm or Feeding(IMAGENET, _DEFAULT)


def _small_stem(read: ReadCheckpoint) -> bool:
    stem = read.backbones[0].get("conv1.weight")
    return stem is not None and stem.shape[-1] == 3


def _small(read: ReadCheckpoint) -> Feeding:
    """A network for small images, whose data set shows in the number of classes, if anywhere."""
    origin, classes = read.facts.origin, read.facts.classes
    found = read.layout.small_stem_normalisation.get(classes)
    if found is not None:
        return Feeding(found, f"its origin, {origin} on CIFAR-{classes}")
    remark = f"{origin}'s networks with a 3x3 stem were trained on CIFAR's own mean and deviation"
    remark += ": write them as `mean` and `std`"
    return Feeding(IMAGENET, _DEFAULT, remark, sure=False)


def _names(read: ReadCheckpoint, arch: str) -> Iterator[str]:
    """`ARCH.TAG` of timm where the file says so, or it or a folder around it is called so."""
    path = read.facts.path
    for part in (read.facts.arch or "", path.name, *path.parts[-2:-5:-1]):
        if found := re.match(rf"{re.escape(arch)}\.\w+", part.removeprefix(_CACHED)):
            yield found[0]


def _of_architecture(arch: str) -> Feeding | None:
    """What timm says of its own weights of `arch`; None where it has none."""
    found = None if arch.startswith((TORCHVISION, RAYKD)) else _pretrained(arch)
    if found is None:
        return None
    name, _, tag = arch.partition(".")
    remark = "" if tag else _others(name, found)
    return Feeding(found, f"timm's pretrained_cfg of {arch}", remark)


def _pretrained(arch: str) -> Normalisation | None:
    try:
        config = timm.get_pretrained_cfg(arch)
    except RuntimeError:  # no such architecture or tag, or none with weights
        return None
    return None if config is None else said(config.mean, config.std)


def _others(arch: str, chosen: Normalisation) -> str:
    """A remark where timm's weights of one architecture were not all trained alike."""
    other: dict[Normalisation, list[str]] = {}
    for name in timm.list_pretrained(f"{arch}.*"):
        found = _pretrained(name)
        if found is not None and not found.like(chosen):
            other.setdefault(found, []).append(name.partition(".")[2])
    if not other:
        return ""
    tags = "; ".join(f"{', '.join(names)}: {found.text()}" for found, names in other.items())
    return f"other weights of {arch} take others ({tags}); `arch: {arch}.TAG` or `mean` and `std` say which"


def _json(text: str | None) -> Any:
    try:
        return None if text is None else json.loads(text)
    except (ValueError, RecursionError):
        return None
