"""`DataSpec`: which images a training run sees, and how they are prepared. And the base of all settings."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from trainables.core.errors import UserError

Seed = Annotated[int, Field(ge=0, lt=2**32)]  # what every generator takes
Share = Annotated[float, Field(gt=0, le=1)]


class Spec(BaseModel):
    """Base of all settings: frozen; unknown keys and numbers that are not finite are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    def __hash__(self) -> int:
        """Of the whole content: some fields are mappings, which Python cannot hash."""
        return hash(json.dumps(self.model_dump(), sort_keys=True, default=str))


SPLITS = ("train", "test", "unlabelled")


def _splits(given: Any) -> Any:
    """{split: (pattern, …)}; a single pattern is a list of one."""
    expected = "{train: FOLDER, test: FOLDER}, each a folder, a file, a pattern, or a list of them"
    if given is None:
        return None
    if not isinstance(given, Mapping) or not given:
        raise UserError("", "wrong value", value=given, expected=expected)
    checked = {}
    for split, patterns in given.items():
        if split not in SPLITS:
            raise UserError(str(split), "no such split", value=split, choices=SPLITS)
        several = [patterns] if isinstance(patterns, str) else patterns
        listed = isinstance(several, (list, tuple)) and several
        if not listed or not all(p and isinstance(p, str) for p in several):
            expected = "a name in quotes, or a list of such"
            raise UserError(split, "wrong value", value=patterns, expected=expected)
        checked[split] = tuple(several)
    return checked


def _classes(given: Any) -> Any:
    """Numbers or names of classes, each once, in order: their order in a file changes no result."""
    expected = "a list of at least two classes, all by number (from 0) or all by name"
    if given is None:
        return None
    kinds = {type(one) for one in given} if isinstance(given, (list, tuple)) else set()
    if kinds not in ({int}, {str}) or len(given) < 2:
        raise UserError("", "is no list of classes", value=given, expected=expected)
    if twice := [one for at, one in enumerate(given) if one in given[:at]]:
        raise UserError("", "has a class twice", value=twice[0], expected="each class once")
    if kinds == {int} and min(given) < 0:
        raise UserError("", "has a class below 0", value=min(given), expected="numbers from 0")
    return tuple(sorted(given))


class DataSpec(Spec):
    """Which images."""

    name: str = Field("digits", description="a source from `raykd list data`, or `folder` / `parquet`")
    path: Path | None = Field(
        None, description="where the data set lies; default: the data folder of the user"
    )
    image_size: Annotated[int, Field(ge=8, le=1024)] = Field(16, description="side of a view, pixels")
    margin: Annotated[int, Field(ge=0, le=2048)] = Field(
        0, description="images are stored with sides of image_size + margin pixels, room for crops"
    )
    crop_share: Share | None = Field(
        None,
        description="share of a stored image's side that an evaluation view shows, resized to image_size; "
        "left out: image_size / (image_size + margin), which needs no resizing",
    )
    splits: Annotated[dict[str, tuple[str, ...]] | None, BeforeValidator(_splits)] = Field(
        None,
        description="which files below `path` are for what, where their names do not say it, such as "
        "{train: digits/train, test: [more/test, old-*]}; the longer of two that fit wins",
    )
    classes: Annotated[tuple[int, ...] | tuple[str, ...] | None, BeforeValidator(_classes)] = Field(
        None,
        description="the classes whose images are used, by number or name, such as [0, 1, 2]; they are "
        "numbered anew from 0; unlabelled images stay",
    )
    fit: Literal["centre", "whole"] = Field(
        "centre",
        description="what is kept of a picture that is no square. centre: the square in its middle; whole: "
        "all of it, so that crops are drawn from the picture as published recipes do",
    )
    keep: Literal["raw", "jpeg"] = Field(
        "raw",
        description="how prepared images are kept. raw: pixels of one size, the fastest to read; jpeg: whole "
        "pictures as JPEG, for data sets whose pixels would not fit on a disk or in memory",
    )
    short_side: Annotated[int, Field(ge=8, le=2048)] = Field(
        256, description="of `keep: jpeg`: larger pictures are reduced to a shorter side of so many pixels"
    )
    decoder: Literal["cpu", "gpu"] = Field(
        "cpu",
        description="of `keep: jpeg`. cpu: threads, the same pixels on every machine; gpu: the GPU that "
        "trains, where there is one, with slightly other pixels",
    )
    download: bool = Field(False, description="may the source be downloaded")
    validation: Annotated[float, Field(gt=0, lt=1)] = Field(
        1 / 3, description="share of the labelled training images that the search is scored on"
    )
    split_seed: Seed = Field(0, description="seed of the draw that carves the validation part")
    max_undecodable: Annotated[float, Field(ge=0, lt=1)] = Field(
        0.01, description="share of images that may fail to decode"
    )

    @model_validator(mode="after")
    def _sides(self) -> DataSpec:
        if self.keep == "jpeg" and self.short_side < self.image_size:
            problem = "is less than image_size: views would be enlarged from fewer pixels"
            expected = f"at least {self.image_size}"
            raise UserError("short_side", problem, value=self.short_side, expected=expected)
        for name, problem in {
            "short_side": "goes with `keep: jpeg`: raw images have sides of image_size + margin pixels",
            "decoder": "goes with `keep: jpeg`: raw images need none",
        }.items():
            if self.keep == "raw" and getattr(self, name) != type(self).model_fields[name].default:
                raise UserError(name, problem, value=getattr(self, name), expected="`keep: jpeg`, or none")
        return self

    @property
    def stored(self) -> int:
        """Side of an image as views are made from it, pixels."""
        return self.image_size + self.margin

    def kept(self, crop_share: float | None = None) -> int:
        """Side of the middle of a stored image that an evaluation view shows, pixels.

        `crop_share` is a network's own; None: as these data say.
        """
        share = crop_share if crop_share is not None else self.crop_share
        return self.image_size if share is None else max(1, round(share * self.stored))
