"""A checkpoint's own claims besides its weights: its architecture and its number of classes.

Sources: the training's arguments in the file, a `config.json` beside it, and the file's path, which users and
the cache of the Hugging Face hub name after the architecture.
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
from trainables.core.shards import whole_name
from trainables.networks.zoo import OURS, RAYKD, TORCHVISION

_CONFIG = "config.json"  # the file name that timm and the Hugging Face hub use
_CONFIGURED = (
    "model.safetensors",
    "pytorch_model.bin",
    "pytorch_model.safetensors",
    "open_clip_model.safetensors",
)
# Names under which scripts store a training's arguments, and in these the architecture and the classes.
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


class Claims(NamedTuple):
    """The claims of a file."""

    arch: str | None = None  # a name that raykd knows if there is one, else the first name
    options: Mapping[str, Any] = {}
    classes: int = 0  # 0: not named
    arguments: frozenset[str] = frozenset()  # names of the training's arguments
    configured: bool = False  # architecture and options come from a config.json beside the file


def read_claims(content: Mapping[Any, Any], metadata: Mapping[str, str], path: Path, field: str) -> Claims:
    """Claims of the `config.json` beside the file, or else of the file. `UserError` at `field` if damaged."""
    if configured := _configured(path, field):
        return configured
    places = [dict(metadata), *_places(content)]
    names = [name for place in places for name in _names(place)]
    arch = next((known for name in names if (known := known_name(name))), names[0] if names else None)
    arguments = frozenset(str(name) for place in places[2:] for name in place)
    return Claims(arch, classes=_classes(places), arguments=arguments)


def known_name(name: str) -> str | None:
    """The architecture in a name, without hub, owner and tag. None if raykd has no such architecture.

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
    """timm's architectures in the names of the file, its folder and the hub's folder, in this order."""
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


def _configured(path: Path, field: str) -> Claims | None:
    """The claims of timm's `config.json` beside the weights; None if there is no such file."""
    config = path.expanduser().with_name(_CONFIG)
    if whole_name(path.name) not in _CONFIGURED or not config.is_file():
        return None
    try:
        content = json.loads(config.read_text(encoding="utf-8"))
        options = dict(content.get("model_args") or {})
        arch = content.get("architecture")
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise UserError(field, f"its {_CONFIG} cannot be read: {error}", value=str(config)) from None
    if not isinstance(arch, str):
        return None  # written by another library
    kept = {name: value for name, value in options.items() if name not in OURS}
    return Claims(known_name(arch) or arch, kept, configured=True)


def _places(content: Mapping[Any, Any]) -> Iterator[Mapping[Any, Any]]:
    """The file's mapping and the records of arguments in it, up to three levels deep."""
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
    """The fields of a record; empty if `value` is not a record."""
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
