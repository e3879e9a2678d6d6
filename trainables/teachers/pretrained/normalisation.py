"""The pixel mean and standard deviation in a checkpoint or in the configuration beside it."""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from trainables.core.shards import whole_name
from trainables.spec.normalisation import IMAGENET, Normalisation, normalisation_from

# Names of weights on the hubs. Beside other files, a `config.json` may describe anything.
HUB_FILES = re.compile(r"((open_clip_)?(pytorch_)?model|open_clip_\w+)\.(safetensors|bin)")
_HUB_CONFIGS = {  # file -> (section, name of the mean, name of the deviation); the first with both counts
    "config.json": (("pretrained_cfg", "mean", "std"), (None, "mean", "std")),  # new and old timm
    "open_clip_config.json": (("preprocess_cfg", "mean", "std"),),
    "preprocessor_config.json": ((None, "image_mean", "image_std"),),
}
SECTIONS = ("pretrained_cfg", "default_cfg", "args", "opt", "config", "hyper_parameters")


class WrittenNormalisation(NamedTuple):
    """The normalisation that a file or its configuration contains."""

    normalisation: Normalisation
    by: str  # where it is written, for messages


def by_weights(path: Path, metadata: Mapping[str, str]) -> WrittenNormalisation | None:
    """The normalisation in a safetensors file's metadata or beside the file; None if it is in neither."""
    found = normalisation_from(_json(metadata.get("mean")), _json(metadata.get("std")))
    if found is not None:
        return WrittenNormalisation(found, "the file's metadata")
    # A trial's student, or a student exported by a raykd that did not write the normalisation yet.
    if {"trial", "score", "epoch"} <= metadata.keys() or {"arch", "options"} <= metadata.keys():
        return WrittenNormalisation(IMAGENET, "raykd, which trained it")
    return by_folder(path)


def by_folder(path: Path) -> WrittenNormalisation | None:
    """The normalisation in a hub's configuration beside the weights at `path`; None if there is none."""
    if not HUB_FILES.fullmatch(whole_name(path.name)):
        return None
    for name, places in _HUB_CONFIGS.items():
        try:
            config = json.loads(path.with_name(name).read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError):  # missing or damaged: the weights are read without it
            continue
        for section, mean, std in places:
            place = config if section is None or not isinstance(config, dict) else config.get(section)
            if not isinstance(place, dict):
                continue
            # Words of transformers: pixels may stay in 0..255, and may not be normalised.
            white = 255.0 if place.get("do_rescale") is False else 1.0
            as_it_is = place.get("do_normalize") is False
            given = (0.0, 1.0) if as_it_is else (place.get(mean), place.get(std))
            if (found := normalisation_from(given[0], given[1], white)) is not None:
                return WrittenNormalisation(found, f"{name} beside the file")
    return None


def by_arguments(content: Mapping[str, Any]) -> WrittenNormalisation | None:
    """The normalisation in a training's arguments, such as those of timm's script; None if there is none."""
    for name, place in (("", content), *((name, content.get(name)) for name in SECTIONS)):
        values = vars(place) if isinstance(place, argparse.Namespace) else place
        if isinstance(values, Mapping):
            found = normalisation_from(values.get("mean"), values.get("std"))
            if found is not None:
                return WrittenNormalisation(found, f"`{name}` in the file" if name else "the file")
    return None


def _json(text: str | None) -> Any:
    try:
        return None if text is None else json.loads(text)
    except (ValueError, RecursionError):
        return None
