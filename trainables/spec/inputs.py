"""What a network takes: how views become its input, and how its evaluation views are cut and resized.

Views are RGB images of the data's size, normalised by ImageNet's mean and deviation, and students are trained
on them. A network with weights of its own may have been trained on others. Its backbone converts the views
(`Backbone.feed`), and probes show it evaluation views as in its training (`views.augmented.PlainView`).
A range of values (0..255, -1..1) is a mean and a deviation: pixels are in 0..1, and a network that takes
0..255 has mean 0 and deviation 1/255.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, NamedTuple

from pydantic import BeforeValidator, Field, ValidationInfo, field_validator, model_validator

from trainables.core.errors import UserError
from trainables.spec.data_spec import DataSpec, Share, Spec
from trainables.spec.normalisation import IMAGENET, LEAST_STD, Normalisation, Triple, checked

Channels = Literal["rgb", "bgr"]
Interpolation = Literal["bilinear", "bicubic"]
AS_DATA = "data"  # a crop share: that of the data's evaluation views
# How images were cut and resized for every teacher before these were fields: as for the student.
AS_STUDENT = {"channels": "rgb", "interpolation": "bilinear", "crop_share": AS_DATA}


class Inputs(NamedTuple):
    """What one network takes."""

    normalisation: Normalisation = IMAGENET  # of red, green, blue, whatever order the network takes them in
    channels: Channels = "rgb"  # the order of the channels
    interpolation: Interpolation = "bilinear"  # where pixels are resized for it, antialiased
    crop_share: float | None = None  # of a stored image's side in evaluation views; None: as the data say
    image_size: int | None = None  # side of its images, pixels; None: that of the views

    def training(self, image_size: int) -> Inputs:
        """What of this matters for views of `image_size` pixels in training, the rest at its default."""
        resized = self.image_size not in (None, image_size)
        return self._replace(
            crop_share=None,
            interpolation=self.interpolation if resized else "bilinear",
            image_size=self.image_size if resized else None,
        )

    def text(self) -> str:
        """All but the size in words: `ImageNet's mean and deviation, bicubic, crop share 0.875`."""
        parts = [self.normalisation.text(), *([self.channels.upper()] * (self.channels != "rgb"))]
        parts.append(self.interpolation)
        if self.crop_share is not None:
            parts.append(f"crop share {self.crop_share:.4g}")
        return ", ".join(parts)


USUAL = Inputs()  # what students take


def _share_or_data(given: Any) -> Any:
    if isinstance(given, str) and given != AS_DATA:
        expected = f"a number above 0, at most 1, or {AS_DATA!r}"
        raise UserError("", "is no share", value=given, expected=expected)
    return given


class InputFields(Spec):
    """The fields of a network with weights of its own. What is left out is found out from its weights."""

    mean: Triple | None = Field(
        None,
        description="of the pixels (0..1) that it was trained on, by channel (red, green, blue); left out: "
        "as the file, its origin or timm's pretrained_cfg says",
    )
    std: Triple | None = Field(None, description="their deviation, likewise; 1/255 for values of 0..255")
    channels: Channels | None = Field(
        None, description="rgb | bgr: the order in which it takes them; left out: likewise"
    )
    interpolation: Interpolation | None = Field(
        None,
        description="bilinear | bicubic: how evaluation views, and views of another size than the student's, "
        "are resized for it; left out: likewise",
    )
    crop_share: Annotated[Share | Literal["data"] | None, BeforeValidator(_share_or_data)] = Field(
        None,
        description="share of an image's side that its evaluation views show (timm's crop_pct); data: as the "
        "student's; left out: likewise",
    )
    image_size: Annotated[int, Field(ge=8, le=2048)] | None = Field(
        None, description="side of the images that it sees; left out: data.image_size, as the student"
    )

    @field_validator("mean", "std", mode="before")
    @classmethod
    def _three(cls, given: Any, info: ValidationInfo) -> Triple | None:
        low, what = (0.0, "mean") if info.field_name == "mean" else (LEAST_STD, "deviation")
        return None if given is None else checked(given, low, what)

    @model_validator(mode="after")
    def _both(self) -> InputFields:
        for name, other in (("mean", "std"), ("std", "mean")):
            if getattr(self, name) is None and getattr(self, other) is not None:
                raise UserError(name, f"is missing beside `{other}`", expected="both, or neither")
        return self

    @property
    def normalisation(self) -> Normalisation:
        """How its pixels are normalised; ImageNet's mean and deviation where nothing is said."""
        return IMAGENET if self.mean is None or self.std is None else Normalisation(self.mean, self.std)

    @property
    def inputs(self) -> Inputs:
        """What it takes; the usual where nothing is said."""
        return Inputs(
            self.normalisation,
            self.channels or "rgb",
            self.interpolation or "bilinear",
            None if self.crop_share in (None, AS_DATA) else float(self.crop_share),
            self.image_size,
        )

    def side(self, data: DataSpec) -> int:
        """Side of the images that it sees, pixels."""
        return self.image_size or data.image_size

    def as_before(self, data: DataSpec) -> set[str]:
        """The fields at whose values a network sees what all networks saw before these were fields."""
        inputs = self.inputs
        usual = {
            "mean": inputs.normalisation.like(IMAGENET),
            "std": inputs.normalisation.like(IMAGENET),
            "channels": inputs.channels == "rgb",
            "interpolation": inputs.interpolation == "bilinear",
            "crop_share": data.kept(inputs.crop_share) == data.kept(),
            "image_size": self.side(data) == data.image_size,
        }
        return {name for name, same in usual.items() if same}
