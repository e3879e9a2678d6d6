"""The mean and deviation that a checkpoint itself, or the configuration beside it, says it was trained on."""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from trainables.spec.normalisation import IMAGENET, Normalisation, normalisation_from

# As the hubs call weights. Beside others a `config.json` may be about anything.
_HUB_FILES = re.compile(r"((open_clip_)?(pytorch_)?model|open_clip_\w+)\.(safetensors|bin)")
_HUB_CONFIGS = {  # file -> (section, names of mean and deviation), the first that says both
    "config.json": (("pretrained_cfg", "mean", "std"), (None, "mean", "std")),  # timm's, now and of old
    "open_clip_config.json": (("preprocess_cfg", "mean", "std"),),
    "preprocessor_config.json": ((None, "image_mean", "image_std"),),
}
_SECTIONS = ("pretrained_cfg", "default_cfg", "args", "opt", "config", "hyper_parameters")


class Said(NamedTuple):
    """What a file says of the pixels it was trained on."""

    normalisation: Normalisation
    by: str  # where it says so


def said_by_weights(path: Path, metadata: Mapping[str, str]) -> Said | None:
    """What a safetensors file or the configuration beside it says; None where neither does."""
    found = normalisation_from(_json(metadata.get("mean")), _json(metadata.get("std")))
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
            if (
                isinstance(place, dict)
                and (found := normalisation_from(place.get(mean), place.get(std))) is not None
            ):
                return Said(found, f"{name} beside the file")
    return None


def said_by_training(content: Mapping[str, Any]) -> Said | None:
    """What a training script kept beside the weights, such as the arguments of timm's; None: nothing."""
    for name, place in (("", content), *((name, content.get(name)) for name in _SECTIONS)):
        values = vars(place) if isinstance(place, argparse.Namespace) else place
        if isinstance(values, Mapping):
            found = normalisation_from(values.get("mean"), values.get("std"))
            if found is not None:
                return Said(found, f"`{name}` in the file" if name else "the file")
    return None


def _json(text: str | None) -> Any:
    try:
        return None if text is None else json.loads(text)
    except (ValueError, RecursionError):
        return None
