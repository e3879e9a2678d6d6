"""`DetectionTask`: a student as the backbone of torchvision's Faster or Mask R-CNN. Read without torch.

    task: detection
    preset: voc_c4
    train: {root: VOCdevkit/VOC2007, image_set: trainval}
    val: {root: VOCdevkit/VOC2007, image_set: test}

The presets are the settings of detectron2's configurations and of MoCo's, with which the papers of this field
compare backbones (github.com/facebookresearch/moco, detection/configs).
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, field_validator, model_validator
from typing_extensions import Self

from trainables.core.errors import UserError
from trainables.spec.network_spec import file_digest
from trainables.spec.suite_task import SuiteTask
from trainables.spec.trial import DataSpec, Spec, digest

_VOC_SIZES = tuple(range(480, 801, 32))
_COCO_SIZES = tuple(range(640, 801, 32))
_COCO = {"detector": "mask_rcnn", "min_size": _COCO_SIZES, "warmup": 1000, "batch_norm": "sync"}
# Name -> fields, which fields beside the preset replace. `drops` are shares: they move with the length.
PRESETS: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {
        "voc_c4": {
            "detector": "faster_rcnn",
            "neck": "c4",
            "min_size": _VOC_SIZES,
            "iterations": 24_000,
            "drops": (18 / 24, 22 / 24),
            "warmup": 100,
            "batch_norm": "sync",
            "head_norm": True,
        },
        "coco_1x": {**_COCO, "neck": "fpn", "iterations": 90_000, "drops": (6 / 9, 8 / 9)},
        "coco_2x": {**_COCO, "neck": "fpn", "iterations": 180_000, "drops": (12 / 18, 16 / 18)},
        "coco_c4_1x": {
            **_COCO,
            "neck": "c4",
            "head_norm": True,
            "iterations": 90_000,
            "drops": (6 / 9, 8 / 9),
        },
        "coco_c4_2x": {
            **_COCO,
            "neck": "c4",
            "head_norm": True,
            "iterations": 180_000,
            "drops": (12 / 18, 16 / 18),
        },
    }
)
_LENGTHS = ("epochs", "iterations")


def _place(given: Any) -> Any:
    """A path as it is on every node: nodes have other current folders than the one where a suite is read."""
    if not isinstance(given, str | Path) or not str(given).strip():
        raise UserError("", "is no path", value=given, expected="a path")
    return Path(given).expanduser().absolute()


Place = Annotated[Path, BeforeValidator(_place)]


class AnnotatedImages(Spec):
    """Images with boxes: a folder and COCO's JSON file, or a folder in the layout of Pascal VOC."""

    images: Place | None = Field(None, description="COCO: the folder of the images")
    annotations: Place | None = Field(None, description="COCO: the JSON file of the instances")
    root: Place | None = Field(None, description="VOC: the folder of JPEGImages, Annotations and ImageSets")
    image_set: str | None = Field(
        None, description="VOC: a list in ImageSets/Main, such as trainval, without .txt"
    )

    @model_validator(mode="after")
    def _one_format(self) -> Self:
        coco, voc = (self.images, self.annotations), (self.root, self.image_set)
        expected = "`{images: DIR, annotations: FILE}` (COCO) or `{root: DIR, image_set: NAME}` (VOC)"
        if any(coco) and any(voc):
            raise UserError("", "mixes the fields of two formats", expected=expected)
        if not any((*coco, *voc)):
            raise UserError("", "says no images", expected=expected)
        for name, other in (("images", "annotations"), ("root", "image_set")):
            for missing, there in ((name, other), (other, name)):
                if getattr(self, missing) is None and getattr(self, there) is not None:
                    raise UserError(missing, f"is missing beside `{there}`", expected=expected)
        return self

    @field_validator("image_set")
    @classmethod
    def _a_name(cls, given: str | None) -> str | None:
        if given is not None and Path(given).name != given:
            raise UserError("", "is no name of a list", value=given, expected="such as trainval")
        return given

    @property
    def list_file(self) -> Path:
        """VOC: the file that lists the images."""
        assert self.root is not None
        return self.root / "ImageSets" / "Main" / f"{self.image_set}.txt"

    def content(self) -> str:
        """A hash of the annotations and not of their paths. Of VOC's: the list and each of its files."""
        if self.annotations is not None:
            return file_digest(self.annotations)
        assert self.root is not None
        folder = self.root / "Annotations"
        return _voc_content(self.list_file, folder, changed(self.list_file), changed(folder))


def changed(file: Path) -> int:
    """When it was changed, in nanoseconds; 0 where it is not there."""
    try:
        return file.stat().st_mtime_ns
    except OSError:
        return 0


@lru_cache
def _voc_content(list_file: Path, folder: Path, *stamps: int) -> str:
    together = hashlib.sha256(file_digest(list_file).encode())
    try:
        names = list_file.read_text(encoding="utf-8").split()
    except (OSError, ValueError):  # reading the annotations reports that
        return together.hexdigest()
    for name in dict.fromkeys(names):
        together.update(file_digest(folder / f"{name}.xml").encode())
    return together.hexdigest()


def _listed(given: Any) -> Any:
    """One part, or a list of them, as a list."""
    if isinstance(given, list | tuple):
        if not given:
            raise UserError("", "says no images", value=[], expected="one part, or a list of them")
        return given
    return [given]


def _numbers(given: Any) -> Any:
    """A number, or a list of them, as a list."""
    return [given] if isinstance(given, int | float | str) else given


Sides = Annotated[tuple[Annotated[int, Field(ge=32)], ...], BeforeValidator(_numbers)]
Parts = Annotated[tuple[AnnotatedImages, ...], BeforeValidator(_listed)]
Positive = Annotated[int, Field(ge=1)]
Below1 = Annotated[float, Field(gt=0, lt=1)]


class DetectionTask(SuiteTask):
    """Detection: the network is fine-tuned in a detector and scored by the mean average precision of boxes.

    The images are those of `train` and `val`, whatever data a student was trained on.
    """

    task: Literal["detection"] = "detection"
    preset: Literal["voc_c4", "coco_1x", "coco_2x", "coco_c4_1x", "coco_c4_2x"] | None = Field(
        None, description="settings of the papers; fields beside it replace its own"
    )
    train: Parts = Field(description="annotated images, or a list of them")
    val: Parts = Field(description="annotated images that the detector is scored on, or a list of them")
    detector: Literal["faster_rcnn", "mask_rcnn"] = Field("faster_rcnn", description="boxes, or masks too")
    neck: Literal["fpn", "c4"] = Field(
        "fpn", description="fpn: a pyramid over all stages; c4: the last stage is run on each region"
    )
    min_size: Annotated[Sides, Field(min_length=1)] = Field(
        (800,),
        description="shorter side of an image, pixels; of several one is drawn in training, and the last one "
        "is that of the test",
    )
    max_size: Annotated[int, Field(ge=32)] = Field(1333, description="longest side of an image, pixels")
    epochs: Positive | None = Field(None, description="length of the training")
    iterations: Positive | None = Field(None, description="length of the training instead of epochs")
    batch: Positive = Field(16, description="images of one step, all workers")
    accumulate: Positive = Field(1, description="passes that make one step, for less memory")
    lr: Annotated[float, Field(gt=0)] = Field(0.02, description="peak learning rate of SGD")
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    weight_decay: Annotated[float, Field(ge=0)] = Field(1e-4, description="norms are not decayed")
    warmup: Annotated[int, Field(ge=0)] = Field(
        1000, description="steps of linear warm-up from a thousandth of lr, at most a tenth of the training"
    )
    drops: tuple[Below1, ...] = Field(
        (6 / 9, 8 / 9), description="shares of the training after which lr falls to a tenth"
    )
    flip: bool = Field(True, description="mirror half of the training images")
    frozen_stages: Annotated[int, Field(ge=0, le=4)] = Field(
        0, description="first stages of the network, with all before them, that are not trained"
    )
    batch_norm: Literal["sync", "train", "frozen"] = Field(
        "sync", description="of the network: statistics over all workers, of each, or not changed"
    )
    head_norm: bool = Field(
        False, description="batch norm in the new layers: behind the last stage (c4), in the pyramid (fpn)"
    )
    fpn_channels: Annotated[int, Field(ge=8, le=1024)] = Field(
        256, description="channels of the pyramid, and of the mask head"
    )
    head_width: Annotated[int, Field(ge=8, le=8192)] = Field(1024, description="of the box head (fpn)")
    anchors: Annotated[tuple[Positive, ...], BeforeValidator(_numbers)] = Field(
        (),
        description="sides of anchors, pixels; fpn: one for each level, left out: 8 strides; c4: all on one "
        "map, left out: 32 to 512",
    )
    proposals: Positive | None = Field(
        None, description="regions kept of an image in training; left out: 2000; in the test at most 1000"
    )
    region_samples: Positive = Field(512, description="regions of an image that the heads are trained on")
    precision: Literal["auto", "float32", "bfloat16"] = Field(
        "auto", description="autocast type of the training; auto: bfloat16 on GPUs, float32 on CPUs"
    )

    @model_validator(mode="before")
    @classmethod
    def _preset(cls, raw: Any) -> Any:
        if not isinstance(raw, Mapping) or raw.get("preset") is None:
            return raw
        fields = PRESETS.get(raw["preset"]) if isinstance(raw["preset"], str) else None
        if fields is None:
            raise UserError("preset", "no such preset", value=raw["preset"], choices=PRESETS)
        chosen = {name for name in _LENGTHS if raw.get(name) is not None}
        left = {name: value for name, value in fields.items() if not chosen or name not in _LENGTHS}
        return {**left, **raw}

    @field_validator("data", mode="after")
    @classmethod
    def _own_images(cls, given: dict[str, Any]) -> dict[str, Any]:
        if given:
            expected = "`train` and `val`"
            raise UserError("", "is for tasks on labelled images", value=given, expected=expected)
        return given

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if (self.epochs is None) == (self.iterations is None):
            problem = "is missing" if self.epochs is None else "stands beside `iterations`"
            raise UserError("epochs", problem, expected="either `epochs` or `iterations`")
        if self.max_size < max(self.min_size):
            problem = f"is less than the largest of min_size, {max(self.min_size)}"
            raise UserError("max_size", problem, value=self.max_size)
        if list(self.drops) != sorted(set(self.drops)):
            expected = "shares of the training in rising order"
            raise UserError("drops", "are not in order", value=list(self.drops), expected=expected)
        if self.batch % self.accumulate:
            expected = f"a divisor of batch, {self.batch}"
            raise UserError("accumulate", "does not divide it", value=self.accumulate, expected=expected)
        return self

    def images(self, data: DataSpec) -> str:
        """The folders of the images that the detector is scored on."""
        folders = [part.images or part.root for part in self.val]
        return ", ".join(dict.fromkeys(folder.name for folder in folders if folder is not None))

    def split(self, data: DataSpec) -> str:
        """The name of these images, which are not the student's own test split."""
        return f"{self.images(data)}-{digest({'val': [part.content() for part in self.val]})}"

    def identity(self) -> dict[str, Any]:
        """Settings and the content of the annotations; paths do not count."""
        said = self.model_dump(mode="json", exclude={"data", "preset", "train", "val"})
        return said | {name: [part.content() for part in getattr(self, name)] for name in ("train", "val")}

    def key(self, data: DataSpec) -> str:
        """8 hex digits of the identity; the student's own data do not count."""
        return digest(self.identity())
