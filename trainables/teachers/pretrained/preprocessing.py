"""How images were cut and resized for a network, as its file, its configuration or its origin's code says.

Three words mean one thing: timm's `crop_pct`, the side of a crop divided by the side that images were resized
to, and `crop_share` here.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

from trainables.core.shards import whole_name
from trainables.spec.inputs import Channels, Interpolation
from trainables.teachers.pretrained.normalisation import HUB_FILES, SECTIONS


class Preprocessing(NamedTuple):
    """What one source says of a network's images; None where it says nothing."""

    interpolation: Interpolation | None = None
    crop_share: float | Literal["data"] | None = None  # "data": as the data's evaluation views
    channels: Channels | None = None
    image_size: int | None = None  # side of the images that it was trained on, pixels

    def text(self) -> str:
        """`bicubic, crop share 0.9`, what is said of evaluation views; empty if nothing is."""
        share = f"crop share {self.crop_share:.4g}" if isinstance(self.crop_share, float) else ""
        return ", ".join(filter(None, (self.interpolation, share)))


NOTHING = Preprocessing()
# Of a network that raykd trained: it saw the data's own evaluation views.
BY_RAYKD = Preprocessing("bilinear", "data", "rgb")
# The evaluations in the code of self-supervised projects resize the shorter side to 256 and take 224.
_SHARE = 224 / 256
# Origins, and words in names of files, whose code evaluates with bicubic resizing. The others use
# torchvision's default, which is bilinear.
_BICUBIC = ("dino", "dinov2", "ibot", "mae", "deit", "esvit")
_HUGGING_FACE = {"2": "bilinear", "3": "bicubic"}  # Pillow's numbers


def combined(sources: Iterable[Preprocessing]) -> Preprocessing:
    """For each field what the first source says that says something of it."""
    listed = list(sources)
    said = zip(*listed, strict=True) if listed else ()
    return Preprocessing(*(next((value for value in values if value is not None), None) for values in said))


def of_origin(origin: str) -> Preprocessing:
    """What the evaluation in the code of a self-supervised project does with images."""
    project = origin.partition(",")[0].partition(" ")[0]
    return Preprocessing("bicubic" if project in _BICUBIC else "bilinear", _SHARE, "rgb")


def from_timm(config: Mapping[str, Any]) -> Preprocessing:
    """What timm's fields say: `interpolation`, `crop_pct`, `input_size`; what means nothing is left out.

    And raykd's `channels`, for which timm has no word.
    """
    size, share = config.get("input_size"), config.get("crop_pct")
    side = size[-1] if isinstance(size, list | tuple) and size else config.get("img_size")
    channels = _word(config.get("channels"), get_args(Channels))
    return Preprocessing(_interpolation(config.get("interpolation")), _share(share), channels, _side(side))


def of_torchvision(name: str) -> Preprocessing:
    """What the transforms of torchvision's own weights do; nothing for a network without weights."""
    from torchvision.models import get_model_weights

    try:
        weights = get_model_weights(name)
        known = getattr(weights, "IMAGENET1K_V1", None) or next(iter(weights))
        does = known.transforms()
        size, resized = int(does.crop_size[0]), int(does.resize_size[0])
    except (ValueError, StopIteration, AttributeError, TypeError, IndexError):
        return NOTHING
    return Preprocessing(_interpolation(does.interpolation.value), _share(size / resized), "rgb", size)


def by_file(path: Path, metadata: Mapping[str, str], content: Mapping[str, Any]) -> Preprocessing:
    """What a file's metadata, the arguments of its training, or the configuration beside it say."""
    if {"trial", "score", "epoch"} <= metadata.keys():
        return BY_RAYKD
    names = ("interpolation", "crop_pct", "input_size", "channels")
    written = from_timm({name: _json(metadata.get(name)) for name in names})
    if {"arch", "options"} <= metadata.keys():  # an exported student; older ones do not say more
        return combined([written, BY_RAYKD])
    arguments = [
        from_timm(place)
        for name in ("", *SECTIONS)
        if isinstance(place := _record(content.get(name) if name else content), Mapping)
    ]
    return combined([written, *arguments, _by_folder(path)])


def _by_folder(path: Path) -> Preprocessing:
    if not HUB_FILES.fullmatch(whole_name(path.name)):
        return NOTHING
    found = []
    for name in ("config.json", "open_clip_config.json", "preprocessor_config.json"):
        try:
            config = json.loads(path.with_name(name).read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError):
            continue
        if not isinstance(config, dict):
            continue
        if name == "preprocessor_config.json":
            found.append(_of_transformers(config))
        elif name == "config.json":
            found.append(
                from_timm(section if isinstance(section := config.get("pretrained_cfg"), dict) else config)
            )
        elif isinstance(section := config.get("preprocess_cfg"), dict):
            size = section.get("size")
            side = size[-1] if isinstance(size, list) and size else size
            found.append(
                Preprocessing(_interpolation(section.get("interpolation")), 1.0, image_size=_side(side))
            )
    return combined([*found, NOTHING])


def _of_transformers(config: Mapping[str, Any]) -> Preprocessing:
    """What the image processor of transformers does."""
    resized, cropped = (_shortest(config.get(name)) for name in ("size", "crop_size"))
    if config.get("do_center_crop") is False or cropped is None:
        share = 1.0 if resized else None
    else:
        share = _share(cropped / resized) if resized else None
    return Preprocessing(
        _interpolation(_HUGGING_FACE.get(str(config.get("resample")))),
        share,
        "bgr" if config.get("do_flip_channel_order") is True else None,
        _side(cropped or resized),
    )


def _shortest(size: Any) -> int | None:
    """The side in transformers' ways of writing one: 224, {"shortest_edge": 256}, {"height": 224, ...}."""
    if isinstance(size, dict):
        size = size.get("shortest_edge", size.get("height"))
    return _side(size)


def _interpolation(given: Any) -> Interpolation | None:
    word: Interpolation | None = _word(given, get_args(Interpolation))
    return word


def _word(given: Any, known: tuple[Any, ...]) -> Any:
    """`given` if it is one of the `known` words; else None. A file may hold anything under any name."""
    return given if isinstance(given, str) and given in known else None


def _share(given: Any) -> float | None:
    known = isinstance(given, int | float) and not isinstance(given, bool) and 0 < given <= 1
    return float(given) if known else None


def _side(given: Any) -> int | None:
    return given if isinstance(given, int) and not isinstance(given, bool) and given > 0 else None


def _record(value: Any) -> Any:
    return vars(value) if isinstance(value, argparse.Namespace) else value


def _json(text: str | None) -> Any:
    try:
        return None if text is None else json.loads(text)
    except (ValueError, RecursionError):
        return text  # a word, as other libraries write it
