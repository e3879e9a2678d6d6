"""The pixel normalisation (mean and standard deviation) that a network's weights were trained with.

    feeding("vit_small_patch16_224", read).normalisation      # fills `mean` and `std` of a teacher or student

Sources, in this order: the file itself (safetensors metadata, `config.json` of a hub folder, arguments of the
training), the file's origin if it is known, timm's `pretrained_cfg` of the architecture, ImageNet's values.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple, TypeVar

import timm

from trainables.core.errors import UserError
from trainables.networks.zoo import RAYKD, TORCHVISION
from trainables.spec.network_spec import WeightsSpec
from trainables.spec.normalisation import IMAGENET, Normalisation, normalisation_from
from trainables.teachers.pretrained.read import ReadCheckpoint, read_checkpoint

W = TypeVar("W", bound=WeightsSpec)
# Methods in names of published files. All were trained with ImageNet's normalisation.
_NAMED = re.compile(r"(?<![a-z])(dino(v2)?|ibot|mae|moco|msn|deit3?)(?![a-z])")
_DEFAULT = "default, since nothing says it"
_BY_ARCHITECTURE = "its architecture: give it with --arch NAME"
_CACHED = "models--timm--"  # prefix of a timm model's folder in the cache of the hub's client


class Feeding(NamedTuple):
    """The normalisation of a network's pixels, and its source."""

    normalisation: Normalisation
    by: str  # the source, for messages
    remark: str = ""  # a remark for the user; may be empty
    sure: bool = True  # False: no source names it, and it may be wrong


_known: dict[tuple[object, ...], Feeding | None] = {}  # one file may serve thousands of trials


def own_feeding(spec: WeightsSpec) -> Feeding | None:
    """The normalisation that the checkpoint was trained with, independent of `mean` and `std`.

    None for a network without a checkpoint, because it sees the pixels of the views. None also for a file
    that cannot be read; `check_teacher` and `check_student` report the reason.
    """
    if spec.checkpoint is None:
        return None
    path = spec.checkpoint.expanduser()
    try:
        stat = path.stat()
    except OSError:
        return None
    key = (path.absolute(), stat.st_mtime_ns, stat.st_size, spec.arch)
    if key not in _known:
        try:
            _known[key] = feeding(spec.arch, read_checkpoint(path, f"{spec.section}.checkpoint"))
        except UserError:
            _known[key] = None
    return _known[key]


def filled(spec: W) -> W:
    """`spec` with its checkpoint's mean and standard deviation, unless the spec has its own."""
    found = own_feeding(spec) if spec.mean is None else None
    if found is None:
        return spec
    return spec.model_copy(update=found.normalisation._asdict())


def is_own(spec: WeightsSpec) -> bool:
    """Whether the spec has the mean and standard deviation that `filled` would take from its file."""
    found = own_feeding(spec)
    return spec.mean is not None and found is not None and found.normalisation.like(spec.normalisation)


def remark(spec: WeightsSpec) -> str:
    """A sentence for the user if the normalisation is not ImageNet's or is uncertain; else empty."""
    fed, found = spec.normalisation, own_feeding(spec)
    start = f"{spec.section} {spec.arch}: its pixels have {fed.text()}"
    if found is None or not (fed.like(found.normalisation) or found.sure):
        return "" if fed.like(IMAGENET) else f"{start}, by `mean` and `std`"
    if not fed.like(found.normalisation):
        trained = f"by {found.by} it was trained on {found.normalisation.text()}"
        return f"{start}, as the sweep says; {trained}"
    if fed.like(IMAGENET) and found.sure:
        return ""
    return f"{start}, by {found.by}" + (f"; {found.remark}" if found.remark else "")


def feeding(arch: str | None, read: ReadCheckpoint) -> Feeding:
    """The normalisation of the network in a file, read as architecture `arch` (None: unknown)."""
    facts, layout = read.facts, read.layout
    if facts.pixels is not None:
        return Feeding(*facts.pixels)
    by_timm = None if arch is None else _of_architecture(arch)
    if layout.normalisation is not None:
        stem = read.backbones[0].get("conv1.weight")
        if layout.small_stem_normalisation and stem is not None and stem.shape[-1] == 3:
            return _small(read)
        remark = ""
        if by_timm is not None and not by_timm.normalisation.like(layout.normalisation):
            remark = f"timm's own weights of {arch} take {by_timm.normalisation.text()}"
        if layout.origin.startswith(("a ", "an ")):  # such a row describes the networks, not their project
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


def _small(read: ReadCheckpoint) -> Feeding:
    """The normalisation of a network for small images: only the number of classes identifies its data set."""
    origin, classes = read.facts.origin, read.facts.classes
    found = read.layout.small_stem_normalisation.get(classes)
    if found is not None:
        return Feeding(found, f"its origin, {origin} on CIFAR-{classes}")
    trained = f"{origin}'s networks with a 3x3 stem were trained on CIFAR's own mean and deviation"
    remark = f"{trained}: write them as `mean` and `std`"
    return Feeding(IMAGENET, _DEFAULT, remark, sure=False)


def _names(read: ReadCheckpoint, arch: str) -> Iterator[str]:
    """timm's names `ARCH.TAG` in the file, in its name and in the names of the three folders above it."""
    path = read.facts.path
    for part in (read.facts.arch or "", path.name, *path.parts[-2:-5:-1]):
        if found := re.match(rf"{re.escape(arch)}\.\w+", part.removeprefix(_CACHED)):
            yield found[0]


def _of_architecture(arch: str) -> Feeding | None:
    """The normalisation of timm's own weights of `arch`; None if it has none."""
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
    return None if config is None else normalisation_from(config.mean, config.std)


def _others(arch: str, chosen: Normalisation) -> str:
    """A remark if timm has weights of `arch` with another normalisation than `chosen`; else empty."""
    other: dict[Normalisation, list[str]] = {}
    for name in timm.list_pretrained(f"{arch}.*"):
        found = _pretrained(name)
        if found is not None and not found.like(chosen):
            other.setdefault(found, []).append(name.partition(".")[2])
    if not other:
        return ""
    tags = "; ".join(f"{', '.join(names)}: {found.text()}" for found, names in other.items())
    return f"other weights of {arch} take others ({tags}); `arch: {arch}.TAG` or `mean` and `std` say which"
