"""Which network a training run builds, and the weights that it starts from. Part of `trial.py`."""

from __future__ import annotations

import hashlib
from functools import lru_cache
from pathlib import Path
from typing import Any, ClassVar

from pydantic import (
    Field,
    ValidationInfo,
    field_validator,
    model_validator,
)
from typing_extensions import Self

from trainables.core.errors import UserError
from trainables.spec.data_spec import Spec
from trainables.spec.normalisation import IMAGENET, LEAST_STD, Normalisation, Triple, checked


class ModelSpec(Spec):
    """An architecture: any timm model, `torchvision/NAME`, `raykd/NAME` or a user's `my_package:make_net`."""

    arch: str = Field(description="a timm model name, torchvision/NAME or raykd/NAME")
    options: dict[str, Any] = Field(
        {}, description="keyword arguments of the model's constructor, and `stem: small` for small images"
    )

    @property
    def normalisation(self) -> Normalisation:
        """How its pixels are normalised: as views are, by ImageNet's mean and deviation."""
        return IMAGENET


class WeightsSpec(ModelSpec):
    """An architecture, and the weights that it may have learned before."""

    section: ClassVar[str]  # of a trial, for messages

    arch: str = Field(
        description="a timm model name, torchvision/NAME or raykd/NAME; with `pretrained` also "
        "hf-hub:OWNER/REPOSITORY"
    )
    checkpoint: Path | None = Field(None, description="file with its weights")
    pretrained: bool = Field(
        False, description="take the weights that timm, torchvision or the hub have under the name `arch`"
    )
    mean: Triple | None = Field(
        None,
        description="of the pixels (0..1) that it was trained on, by channel; left out: as the file, its "
        "origin or timm's pretrained_cfg says",
    )
    std: Triple | None = Field(None, description="their deviation, likewise")

    @field_validator("mean", "std", mode="before")
    @classmethod
    def _three(cls, given: Any, info: ValidationInfo) -> Triple | None:
        low, what = (0.0, "mean") if info.field_name == "mean" else (LEAST_STD, "deviation")
        return None if given is None else checked(given, low, what)

    @model_validator(mode="after")
    def _both(self) -> Self:
        for name, other in (("mean", "std"), ("std", "mean")):
            if getattr(self, name) is None and getattr(self, other) is not None:
                raise UserError(name, f"is missing beside `{other}`", expected="both, or neither")
        return self

    @property
    def model(self) -> ModelSpec:
        """The architecture alone."""
        return ModelSpec(arch=self.arch, options=self.options)

    @property
    def normalisation(self) -> Normalisation:
        """How its pixels are normalised; ImageNet's mean and deviation where nothing is said."""
        return IMAGENET if self.mean is None or self.std is None else Normalisation(self.mean, self.std)

    def identity(self) -> dict[str, Any]:
        """What of it is part of a trial's identity: of a file its content, not its path."""
        identity = self.model_dump(mode="json")
        identity.pop("pretrained", None)  # `resolve` has put a file in its place
        if self.checkpoint is not None:
            identity["checkpoint"] = file_digest(self.checkpoint)
        # Every network was fed so before these fields existed.
        if self.normalisation.like(IMAGENET):
            identity.pop("mean", None)
            identity.pop("std", None)
        return identity


def file_digest(path: Path) -> str:
    """SHA-256 of a file's content; of its path if the file is not there."""
    path = path.expanduser()
    try:
        stat = path.stat()
        return _file_digest(path, stat.st_size, stat.st_mtime_ns)
    except OSError:  # missing, a folder or unreadable: loading it reports that
        return hashlib.sha256(str(path).encode()).hexdigest()


@lru_cache
def _file_digest(path: Path, size: int, changed_ns: int) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
