"""What data sets that torchvision reads have in common.

torchvision checks each against its published MD5 sums. Data are only downloaded with `data.download: true`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from trainables.core.errors import UserError
from trainables.data.sources.base import Counts, Metric, Part, Parts, Sample, Source, data_folder
from trainables.spec.trial import DataSpec

# (root, "train" | "test", download) -> sequences of (picture, label)
Load = Callable[[Path, str, bool], list[Any]]


def by_flag(name: str) -> Load:
    """Of a class of torchvision that takes `train=True` or `False`."""

    def load(root: Path, split: str, download: bool) -> list[Any]:
        import torchvision.datasets

        return [getattr(torchvision.datasets, name)(root, train=split == "train", download=download)]

    return load


def by_split(name: str, train: tuple[str, ...] = ("train",), test: str = "test", **more: Any) -> Load:
    """Of a class of torchvision that takes `split="train"` and so on; several of `train` are joined."""

    def load(root: Path, split: str, download: bool) -> list[Any]:
        import torchvision.datasets

        # torchvision cannot download ImageNet, so the class has no argument `download`.
        extra = {**more, **({} if name == "ImageNet" else {"download": download})}
        parts = train if split == "train" else (test,)
        return [getattr(torchvision.datasets, name)(root, split=part, **extra) for part in parts]

    return load


@dataclass(frozen=True)
class TorchvisionSet(Source):
    """One data set of `torchvision.datasets`."""

    name: str
    title: str
    held: Counts  # as published
    load: Load
    files: tuple[tuple[str, ...], ...]  # below the root; at least one of each tuple must exist
    size: str  # of the download
    by_hand: str = ""  # the download's address if torchvision cannot download it
    home: str = ""  # subfolder of the default root, for sets without a folder of their own
    more: Callable[[Path], Part] | None = None  # unlabelled training images
    metric: Metric = "top1"
    summary: str = field(init=False)

    def __post_init__(self) -> None:
        free = f" + {self.held.unlabelled:,} unlabelled" if self.held.unlabelled else ""
        images = f"{self.held.labelled:,}{free} train, {self.held.test:,} test"
        how = f"by hand: {self.by_hand}" if self.by_hand else f"{self.size} with data.download=true"
        object.__setattr__(self, "summary", f"{self.title}, {self.held.classes} classes: {images}; {how}")

    def where(self, spec: DataSpec) -> Path:
        root = spec.path.expanduser() if spec.path is not None else data_folder() / self.home
        return root.absolute()

    def missing(self, spec: DataSpec) -> list[str]:
        """The files that are missing, alternatives joined by "or"."""
        root = self.where(spec)
        return [" or ".join(any_of) for any_of in self.files if not any((root / f).exists() for f in any_of)]

    def counts(self, spec: DataSpec) -> Counts:
        if (missing := self.missing(spec)) and not (spec.download and not self.by_hand):
            raise self._absent(spec, missing)
        return self.held

    def published(self) -> Counts:
        return self.held

    def look(self, spec: DataSpec) -> Part | None:
        # Not before the download, and not for sets that take minutes to open.
        slow = self.held.labelled + self.held.unlabelled > 10**6
        return None if slow or self.missing(spec) else super().look(spec)

    def open(self, spec: DataSpec) -> Parts:
        missing = self.missing(spec)
        download = spec.download and not self.by_hand
        if missing and not download:
            raise self._absent(spec, missing)
        root = self.where(spec)
        try:
            if download:
                root.mkdir(parents=True, exist_ok=True)
            train, test = (self.load(root, split, download) for split in ("train", "test"))
        except (OSError, RuntimeError, ValueError, KeyError, EOFError) as error:
            # torchvision raises these for a wrong sum, a lost connection, or a file that it cannot read.
            if missing:
                problem = f"{self.title} could not be downloaded to {root}: {error}"
                raise UserError("data.download", problem) from error
            unchanged = "the complete, unchanged files"
            raise UserError(
                "data.path",
                f"{self.title} in {root} cannot be read: {error}",
                expected=unchanged if self.by_hand else f"{unchanged}; --set data.download=true fetches them",
            ) from error
        parts = [_part(self.title, data) for data in train]
        if self.more is not None:
            parts.append(self.more(root))
        held_out = [_part(f"{self.title} test", data) for data in test]
        return Parts(_joined(parts), _joined(held_out), self.held.classes)

    def _absent(self, spec: DataSpec, missing: list[str]) -> UserError:
        how = f"to get it by hand: {self.by_hand}" if self.by_hand else "--set data.download=true to fetch it"
        return UserError(
            "data.path",
            f"{self.title} is not in {self.where(spec)}: no {', no '.join(missing)} there",
            expected=f"--set data.path=/folder/that/holds/it, or {how} ({self.size})",
        )


def _part(title: str, data: Any) -> Part:
    """A torchvision data set as a part. Sets of files yield paths; a thread pool decodes them later."""

    def samples() -> Iterator[Sample]:
        for i in range(len(data)):
            picture, label = data[i]
            name = str(picture) if isinstance(picture, Path) else f"{title} image {i}"
            yield Sample(name, int(label), picture)

    return Part(len(data), samples)


def _joined(parts: list[Part]) -> Part:
    def samples() -> Iterator[Sample]:
        for part in parts:
            yield from part.samples()

    return Part(sum(part.count for part in parts), samples)
