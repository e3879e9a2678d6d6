"""What a checkpoint says of itself beside its weights: its architecture, and how many classes it knows.

Training scripts keep their arguments in the file, libraries write a `config.json` beside it, and the Hugging
Face hub's cache and people put the name into the file's path.
"""

from __future__ import annotations

import argparse
import json
import re
import types
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import timm
import torchvision

from trainables.core.errors import UserError
from trainables.networks.zoo import OURS, RAYKD, TORCHVISION

_CONFIG = "config.json"  # as timm and the Hugging Face hub call it
_CONFIGURED = (
    "model.safetensors",
    "pytorch_model.bin",
    "pytorch_model.safetensors",
    "open_clip_model.safetensors",
)
# Where scripts keep the arguments of a training, and how they call the architecture and the classes there.
_ARGUMENTS = (
    "args", "opt", "cfg", "config", "hparams", "hyper_parameters", "hyperparameters", "options",
    "params", "model_args", "model_config", "model_kwargs", "pretrained_cfg", "kwargs", "meta",
    "_content",
)  # fmt: skip
_NAMES = (
    "arch", "architecture", "model_name", "model_arch", "backbone_name", "student_arch", "backbone",
    "model", "encoder", "network", "net", "model_s", "student", "_name_", "hf_hub_id",
)  # fmt: skip
_CLASSES = ["num_classes", "n_cls", "n_classes", "nb_classes", "num_class", "classes", "n_class"]
_LISTS = ["classes", "class_names", "class_to_idx", "CLASSES", "labels", "label_names"]  # a list or mapping
_DATA_SETS = {
    "cifar10": 10, "cifar100": 100, "svhn": 10, "mnist": 10, "fashionmnist": 10, "stl10": 10,
    "tinyimagenet": 200, "imagenet": 1000, "imagenet1k": 1000, "imagenet100": 100,
}  # fmt: skip


class Said(NamedTuple):
    """What a file says of itself."""

    arch: str | None = None  # a name that raykd knows, before any other
    options: Mapping[str, Any] = {}
    classes: int = 0  # 0 where it does not say
    arguments: frozenset[str] = frozenset()  # names of the training's arguments
    configured: bool = False  # a config.json beside the file says it


def said_by(content: Mapping[Any, Any], metadata: Mapping[str, str], path: Path, field: str) -> Said:
    """What the file, or the `config.json` beside it, says. `UserError` at `field` for a damaged one."""
    if configured := _configured(path, field):
        return configured
    places = [dict(metadata), *_places(content)]
    names = [name for place in places for name in _names(place)]
    arch = next((known for name in names if (known := known_name(name))), names[0] if names else None)
    arguments = frozenset(str(name) for place in places[2:] for name in place)
    return Said(arch, classes=_classes(places), arguments=arguments)


def known_name(name: str) -> str | None:
    """The architecture that a name means: without hub, owner and tag. None where raykd knows none.

    `hf-hub:timm/tf_efficientnet_b0.ns_jft_in1k` -> `tf_efficientnet_b0`
    """
    if name.startswith((TORCHVISION, RAYKD)):
        return name
    bare = re.sub(r"^(hf[-_]hub:|local-dir:)", "", name).rpartition("/")[2].partition(".")[0]
    for short in (bare, bare.lower().replace("-", "_")):
        if timm.is_model(short):
            return short
    zoo: Any = torchvision.models
    return TORCHVISION + short if short in zoo.list_models(module=zoo) else None


def named_by_path(path: Path) -> tuple[str, ...]:
    """Architectures of timm that the file's name, or the hub's folder that it lies in, names; best first."""
    found: list[str] = []
    path = path.absolute()
    hub = [part for part in path.parts[-6:-2] if part.startswith("models--")]
    for part in (path.name, path.parent.name, *hub):
        words = re.split(r"[^A-Za-z0-9_]+", part.replace("--", "/"))
        for word in words:
            pieces = word.lower().split("_")
            for length in range(len(pieces), 0, -1):
                tried = ("_".join(pieces[at : at + length]) for at in range(len(pieces) - length + 1))
                known = [name for name in tried if timm.is_model(name)]
                if known:
                    found += known
                    break
    return tuple(dict.fromkeys(found))


def _configured(path: Path, field: str) -> Said | None:
    """What timm's `config.json` beside the weights says; None where there is no such file."""
    config = path.expanduser().with_name(_CONFIG)
    if path.name not in _CONFIGURED or not config.is_file():
        return None
    try:
        said = json.loads(config.read_text(encoding="utf-8"))
        options = dict(said.get("model_args") or {})
        arch = said.get("architecture")
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise UserError(field, f"its {_CONFIG} cannot be read: {error}", value=str(config)) from None
    if not isinstance(arch, str):
        return None  # another library's
    kept = {name: value for name, value in options.items() if name not in OURS}
    return Said(known_name(arch) or arch, kept, configured=True)


def _places(content: Mapping[Any, Any]) -> Iterator[Mapping[Any, Any]]:
    """The file itself and the arguments in it, to a depth of three."""
    yield content
    for _ in range(3):
        inner = [
            fields
            for name in _ARGUMENTS
            if (fields := _fields(content.get(name) if isinstance(content, Mapping) else None))
        ]
        yield from inner
        content = {name: value for fields in inner for name, value in fields.items()}


def _fields(value: object) -> Mapping[Any, Any]:
    """The fields of a record; empty where it is none."""
    if isinstance(value, argparse.Namespace | types.SimpleNamespace):
        return vars(value)
    if isinstance(value, Mapping):
        return {**vars(value), **value} if hasattr(value, "__dict__") else value
    return {}


def _names(place: Mapping[Any, Any]) -> Iterator[str]:
    for name in _NAMES:
        value = place.get(name)
        if fields := _fields(value):  # solo-learn: `backbone: {name: resnet18}`; omegaconf: a node's `_val`
            inner = (fields.get(key) for key in ("name", "arch", "type", "model_name", "_val"))
            value = next((one for one in inner if isinstance(one, str)), None)
        if isinstance(value, str) and value and len(value) < 200 and "\n" not in value:
            yield value


def _classes(places: list[Mapping[Any, Any]]) -> int:
    for place in places:
        for name in _CLASSES:
            value = place.get(name)
            if isinstance(value, int) and not isinstance(value, bool) and value > 1:
                return value
    for place in places:
        for name in _LISTS:
            value = place.get(name)
            if isinstance(value, list | tuple | dict) and len(value) > 1:
                return len(value)
    for place in places:
        data = place.get("dataset", place.get("data_name"))
        if isinstance(data, str):
            known = _DATA_SETS.get(re.sub(r"[^a-z0-9]", "", data.lower()), 0)
            if known:
                return known
    return 0
