"""Which network a training run builds, and the weights that it starts from. Part of `trial.py`."""

from __future__ import annotations

import hashlib
from functools import lru_cache
from pathlib import Path
from typing import Any, ClassVar

from pydantic import Field

from trainables.core.shards import parts_of
from trainables.spec.data_spec import DataSpec, Spec
from trainables.spec.inputs import USUAL, InputFields, Inputs


class ModelSpec(Spec):
    """An architecture: any timm model, `torchvision/NAME`, `raykd/NAME` or a user's `my_package:make_net`."""

    arch: str = Field(description="a timm model name, torchvision/NAME or raykd/NAME")
    options: dict[str, Any] = Field(
        {}, description="keyword arguments of the model's constructor, and `stem: small` for small images"
    )

    @property
    def inputs(self) -> Inputs:
        """What it takes: views as they are."""
        return USUAL


class WeightsSpec(InputFields, ModelSpec):
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

    @property
    def model(self) -> ModelSpec:
        """The architecture alone."""
        return ModelSpec(arch=self.arch, options=self.options)

    def identity(self, data: DataSpec) -> dict[str, Any]:
        """What of it is part of a trial's identity: of a file its content, not its path."""
        identity = self.model_dump(mode="json")
        identity.pop("pretrained", None)  # `resolve` has put a file in its place
        if self.checkpoint is not None:
            identity["checkpoint"] = file_digest(self.checkpoint)
        for name in self.as_before(data):
            identity.pop(name, None)
        return identity


def file_digest(path: Path) -> str:
    """SHA-256 of a file's content, or of all files of a checkpoint in several (`core.shards`).

    Of its path if it is not there.
    """
    path = path.expanduser()
    try:
        parts = parts_of(path)
        if parts is None:
            return _content_digest(path)
        together = "".join(f"{part.name} {_content_digest(part)}\n" for part in parts)
        return hashlib.sha256(together.encode()).hexdigest()
    except (OSError, ValueError):  # missing, a folder, unreadable or no index: loading it reports that
        return hashlib.sha256(str(path).encode()).hexdigest()


def _content_digest(path: Path) -> str:
    stat = path.stat()
    return _file_digest(path, stat.st_size, stat.st_mtime_ns)


@lru_cache
def _file_digest(path: Path, size: int, changed_ns: int) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
