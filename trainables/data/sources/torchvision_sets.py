"""Data sets that torchvision reads.

torchvision checks each against its published MD5 sums. Data are only downloaded with `data.download: true`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from trainables.core.errors import UserError
from trainables.data.sources.base import Counts, Part, Parts, Sample, Source, data_folder
from trainables.spec.trial import DataSpec

# (root, "train" | "test", download) -> sequences of (picture, label)
Load = Callable[[Path, str, bool], list[Any]]


def _flowers(root: Path, split: str, download: bool) -> list[Any]:
    from torchvision.datasets import Flowers102

    parts = ("train", "val") if split == "train" else ("test",)
    return [Flowers102(root, split=part, download=download, loader=Path) for part in parts]


def _pets(root: Path, split: str, download: bool) -> list[Any]:
    from torchvision.datasets import OxfordIIITPet

    pets = OxfordIIITPet(root, split="trainval" if split == "train" else "test", download=download)
    return [list(zip(pets._images, pets._labels, strict=True))]  # paths: the class has no argument `loader`


def _by_flag(name: str) -> Load:
    def load(root: Path, split: str, download: bool) -> list[Any]:
        import torchvision.datasets

        return [getattr(torchvision.datasets, name)(root, train=split == "train", download=download)]

    return load


def _by_split(name: str, test: str = "test", **more: Any) -> Load:
    def load(root: Path, split: str, download: bool) -> list[Any]:
        import torchvision.datasets

        # torchvision cannot download ImageNet, so the class has no argument `download`.
        extra = {**more, **({} if name == "ImageNet" else {"download": download})}
        part = "train" if split == "train" else test
        return [getattr(torchvision.datasets, name)(root, split=part, **extra)]

    return load


def _stl10_unlabelled(root: Path) -> Part:
    """The 100 000 unlabelled images of STL-10, read one by one (torchvision would load all 2.8 GB).

    The file contains uint8 images of 3 x 96 x 96 pixels, columns first. torchvision checks its MD5 sum when
    it opens the training part.
    """
    path = root / "stl10_binary" / "unlabeled_X.bin"
    shape = (3, 96, 96)
    count = path.stat().st_size // int(np.prod(shape))

    def samples() -> Iterator[Sample]:
        images = np.memmap(path, np.uint8, "r", shape=(count, *shape))
        for i in range(count):
            yield Sample(f"{path} image {i}", -1, Image.fromarray(images[i].transpose(2, 1, 0).copy()))

    return Part(count, samples)


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


SOURCES = (
    TorchvisionSet(
        name="cifar10",
        title="CIFAR-10",
        held=Counts(50_000, 0, 10_000, 10),
        load=_by_flag("CIFAR10"),
        files=(("cifar-10-batches-py",),),
        size="170 MB",
    ),
    TorchvisionSet(
        name="cifar100",
        title="CIFAR-100",
        held=Counts(50_000, 0, 10_000, 100),
        load=_by_flag("CIFAR100"),
        files=(("cifar-100-python",),),
        size="169 MB",
    ),
    TorchvisionSet(
        name="svhn",
        title="SVHN",
        held=Counts(73_257, 0, 26_032, 10),
        load=_by_split("SVHN"),
        files=(("train_32x32.mat",), ("test_32x32.mat",)),
        size="246 MB",
        home="svhn",
    ),
    TorchvisionSet(
        name="stl10",
        title="STL-10",
        held=Counts(5_000, 100_000, 8_000, 10),
        load=_by_split("STL10"),
        files=(("stl10_binary",),),
        size="2.6 GB",
        more=_stl10_unlabelled,
    ),
    TorchvisionSet(
        name="mnist",
        title="MNIST",
        held=Counts(60_000, 0, 10_000, 10),
        load=_by_flag("MNIST"),
        files=(("MNIST/raw",),),
        size="12 MB",
    ),
    TorchvisionSet(
        name="flowers102",
        title="Flowers-102",
        held=Counts(2_040, 0, 6_149, 102),
        load=_flowers,
        files=(("flowers-102/jpg",), ("flowers-102/imagelabels.mat",), ("flowers-102/setid.mat",)),
        size="345 MB",
    ),
    TorchvisionSet(
        name="pets",
        title="Oxford-IIIT Pet",
        held=Counts(3_680, 0, 3_669, 37),
        load=_pets,
        files=(("oxford-iiit-pet/images",), ("oxford-iiit-pet/annotations",)),
        size="811 MB",
    ),
    TorchvisionSet(
        name="cars",
        title="Stanford Cars",
        held=Counts(8_144, 0, 8_041, 196),
        load=_by_split("StanfordCars", loader=Path),
        files=(
            ("stanford_cars/devkit",),
            ("stanford_cars/cars_train",),
            ("stanford_cars/cars_test",),
            ("stanford_cars/cars_test_annos_withlabels.mat",),
        ),
        size="2 GB",
        by_hand="https://github.com/pytorch/vision/issues/7545",
    ),
    TorchvisionSet(
        name="imagenet",
        title="ImageNet",
        held=Counts(1_281_167, 0, 50_000, 1000),
        load=_by_split("ImageNet", test="val", loader=Path),
        files=(
            ("meta.bin", "ILSVRC2012_devkit_t12.tar.gz"),
            ("train", "ILSVRC2012_img_train.tar"),
            ("val", "ILSVRC2012_img_val.tar"),
        ),
        size="155 GB",
        by_hand="https://image-net.org/download, or read its train/ and val/ with data.name: folder",
        home="imagenet",
    ),
)
