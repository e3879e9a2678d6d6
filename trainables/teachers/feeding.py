"""What a network with weights of its own was trained on: normalisation, channels, interpolation, crop share.

    feeding("vit_small_patch16_224", read)      # fills `mean`, `std` and the other fields of `InputFields`

Sources, in this order: the file itself (safetensors metadata, `config.json` of a hub folder, arguments of the
training), the file's origin if it is known, timm's `pretrained_cfg` of the architecture or torchvision's
transforms; then ImageNet's mean and deviation, RGB, and the evaluation views of the data.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, NamedTuple, TypeVar

import timm

from trainables.core.errors import UserError
from trainables.networks.zoo import RAYKD, TORCHVISION
from trainables.spec.inputs import AS_DATA, InputFields
from trainables.spec.network_spec import WeightsSpec
from trainables.spec.normalisation import IMAGENET, Normalisation, normalisation_from
from trainables.teachers.pretrained.preprocessing import (
    BY_RAYKD,
    NOTHING,
    Preprocessing,
    combined,
    from_timm,
    of_origin,
    of_torchvision,
)
from trainables.teachers.pretrained.read import ReadCheckpoint, read_checkpoint

W = TypeVar("W", bound=WeightsSpec)
# Methods in names of published files. All were trained with ImageNet's normalisation.
_NAMED = re.compile(r"(?<![a-z])(dino(v2)?|ibot|mae|moco|msn|deit3?)(?![a-z])")
_DEFAULT = "default, since nothing says it"
_BY_ARCHITECTURE = "its architecture: give it with --arch NAME"
_CACHED = "models--timm--"  # prefix of a timm model's folder in the cache of the hub's client


class Feeding(NamedTuple):
    """The normalisation of a network's pixels, its source, and how its images were cut and resized."""

    normalisation: Normalisation
    by: str  # the source, for messages
    remark: str = ""  # a remark for the user; may be empty
    sure: bool = True  # False: no source names it, and it may be wrong
    preprocessing: Preprocessing = NOTHING

    def fields(self) -> dict[str, Any]:
        """The values of `InputFields`, but for the size, which is the user's to choose."""
        said = self.preprocessing
        return {
            **self.normalisation._asdict(),
            "channels": said.channels or "rgb",
            "interpolation": said.interpolation or "bilinear",
            "crop_share": said.crop_share or AS_DATA,
        }


F = TypeVar("F", bound=InputFields)

_known: dict[tuple[object, ...], Feeding | None] = {}  # one file may serve thousands of trials


def own_feeding(spec: WeightsSpec) -> Feeding | None:
    """What the checkpoint was trained on, whatever the fields of `spec` say.

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
    """`spec` with what its checkpoint was trained on where the spec says nothing."""
    found = own_feeding(spec)
    return spec if found is None else completed(spec, found)


def completed(spec: F, found: Feeding) -> F:
    """`spec` with what was found where it says nothing itself."""
    lacking = {name: value for name, value in found.fields().items() if getattr(spec, name) is None}
    return spec.model_copy(update=lacking) if lacking else spec


def own_fields(spec: WeightsSpec) -> list[str]:
    """Names of the fields that have the values that `filled` would take from its file."""
    found = own_feeding(spec)
    if found is None:
        return []
    same = {name for name, value in found.fields().items() if getattr(spec, name) == value}
    if spec.mean is not None and found.normalisation.like(spec.normalisation):
        return sorted(same | {"mean", "std"})
    return sorted(same - {"mean", "std"})


def remark(spec: WeightsSpec) -> str:
    """A sentence for the user if pixels are not RGB by ImageNet's values, or if that is uncertain."""
    fed, found = spec.normalisation, own_feeding(spec)
    usual = fed.like(IMAGENET) and spec.inputs.channels == "rgb"
    start = f"{spec.section} {spec.arch}: its pixels have {fed.text()}"
    start += "" if spec.inputs.channels == "rgb" else " in the order blue, green, red"
    if found is None or not (fed.like(found.normalisation) or found.sure):
        return "" if usual else f"{start}, by `mean` and `std`"
    if not fed.like(found.normalisation):
        trained = f"by {found.by} it was trained on {found.normalisation.text()}"
        return f"{start}, as the sweep says; {trained}"
    if usual and found.sure:
        return ""
    return f"{start}, by {found.by}" + (f"; {found.remark}" if found.remark else "")


def feeding(arch: str | None, read: ReadCheckpoint) -> Feeding:
    """What the network in a file was trained on, read as architecture `arch` (None: unknown)."""
    return _normalised(arch, read)._replace(preprocessing=combined(_preprocessings(arch, read)))


def _preprocessings(arch: str | None, read: ReadCheckpoint) -> Iterator[Preprocessing]:
    """What each source says, the first one first."""
    facts, layout = read.facts, read.layout
    yield facts.preprocessing
    if facts.origin == "raykd":
        yield BY_RAYKD
        return
    stem = read.backbones[0].get("conv1.weight")
    if layout.small_stem_normalisation and stem is not None and stem.shape[-1] == 3:
        yield Preprocessing(crop_share=1.0, channels="rgb")  # of small images all is shown
        return
    if layout.normalisation is not None and not layout.origin.startswith(("a ", "an ")):
        yield of_origin(facts.origin)
    if arch is None or arch.startswith(RAYKD):
        return
    if arch.startswith(TORCHVISION):
        yield of_torchvision(arch.removeprefix(TORCHVISION))
        return
    if "." not in arch:
        tagged = next((name for name in _names(read, arch) if timm.is_model_pretrained(name)), None)
        if tagged is not None:
            yield _of_timm(tagged)
        elif (word := _NAMED.search(facts.path.name.lower())) is not None:
            yield of_origin(word[0])
    yield _of_timm(arch)


def _of_timm(arch: str) -> Preprocessing:
    try:
        config = timm.get_pretrained_cfg(arch)
    except RuntimeError:  # no such architecture or tag, or none with weights
        return NOTHING
    return NOTHING if config is None else from_timm(vars(config))


def _normalised(arch: str | None, read: ReadCheckpoint) -> Feeding:
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
