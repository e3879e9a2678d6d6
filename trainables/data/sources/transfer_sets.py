"""Data sets that features are transferred to, as torchvision reads them, with the splits of the field.

Splits and metrics: Kornblith et al., "Do Better ImageNet Models Transfer Better?" (CVPR 2019), table 1, which
BYOL (NeurIPS 2020) and Ericsson et al. (CVPR 2021) follow. EuroSAT: Helber et al. (JSTARS 2019).
"""

from __future__ import annotations

import hashlib
import zipfile
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from trainables.data.sources.base import Counts
from trainables.data.sources.parts.torchvision_set import TorchvisionSet, by_split
from trainables.data.splits import Ids, few_of_each, stratified

_DRAWN_BY = 0  # the seed of splits that were never published as lists
_EUROSAT_TEST = 0.2
_CALTECH_SHOTS = 30
_SUN_LISTS = "SUN397/Partitions"
_SUN_PARTS = {"train": "Training", "test": "Testing"}
_SUN_URL = "https://vision.princeton.edu/projects/2010/SUN/download/Partitions.zip"
_SUN_SHA256 = "e3311ea5f812d4cc6faef194688343d1111f6cd6f70f2c62f393c2b8d6ba1ec9"

Rows = list[tuple[Path, int]]


def _pets(root: Path, split: str, download: bool) -> list[Any]:
    from torchvision.datasets import OxfordIIITPet

    pets = OxfordIIITPet(root, split="trainval" if split == "train" else "test", download=download)
    return [list(zip(pets._images, pets._labels, strict=True))]  # paths: the class has no argument `loader`


def _eurosat(root: Path, split: str, download: bool) -> list[Rows]:
    """80 % of each class to train on, as in Helber et al., whose draw was not published."""
    from torchvision.datasets import EuroSAT

    rows = [(Path(path), label) for path, label in EuroSAT(root, download=download).samples]
    test = stratified(_labels(rows), _EUROSAT_TEST, _DRAWN_BY)
    return [_part(rows, np.setdiff1d(np.arange(len(rows)), test) if split == "train" else test)]


def _caltech(root: Path, split: str, download: bool) -> list[Rows]:
    """30 images of each class to train on, the others for the test.

    Kornblith et al. count the background as a class of its own. torchvision's class leaves it out.
    """
    from torchvision.datasets import Caltech101

    Caltech101(root, download=download)  # for the download and its check
    folders = sorted(path for path in (root / "caltech101/101_ObjectCategories").iterdir() if path.is_dir())
    of_each = [sorted(folder.glob("image_*.jpg")) for folder in folders]
    rows = [(path, label) for label, paths in enumerate(of_each) for path in paths]
    train = few_of_each(_labels(rows), _CALTECH_SHOTS, np.random.default_rng(_DRAWN_BY))
    return [_part(rows, train if split == "train" else np.setdiff1d(np.arange(len(rows)), train))]


def _labels(rows: Rows) -> Ids:
    return np.array([label for _, label in rows], np.int64)


def _part(rows: Rows, ids: Ids) -> Rows:
    return [rows[i] for i in ids]


def _sun(root: Path, split: str, download: bool) -> list[Rows]:
    """50 images of each class to train on and 50 for the test: the first of the ten published partitions."""
    from torchvision.datasets import SUN397

    numbers = SUN397(root, download=download).class_to_idx
    lists = root / _SUN_LISTS
    if download and not lists.exists():
        _download_sun_lists(lists)
    lines = (lists / f"{_SUN_PARTS[split]}_01.txt").read_text().split()
    # Such as /a/apartment_building/outdoor/sun_aavrfogjyxgrlvuh.jpg, of the class apartment_building/outdoor.
    classes = ["/".join(PurePosixPath(line).parts[2:-1]) for line in lines]
    return [[(root / "SUN397" / line[1:], numbers[name]) for line, name in zip(lines, classes, strict=True)]]


def _download_sun_lists(folder: Path) -> None:
    """torchvision downloads the images alone. Raises `RuntimeError` for a wrong sum, as torchvision does."""
    from torchvision.datasets.utils import download_url

    download_url(_SUN_URL, folder.parent)
    file = folder.parent / PurePosixPath(_SUN_URL).name
    if hashlib.sha256(file.read_bytes()).hexdigest() != _SUN_SHA256:
        file.unlink()
        raise RuntimeError(f"{_SUN_URL} is not the file that was published")
    with zipfile.ZipFile(file) as lists:
        lists.extractall(folder)
    file.unlink()


SOURCES = (
    TorchvisionSet(
        name="flowers102",
        title="Flowers-102",
        held=Counts(2_040, 0, 6_149, 102),
        load=by_split("Flowers102", ("train", "val"), loader=Path),
        files=(("flowers-102/jpg",), ("flowers-102/imagelabels.mat",), ("flowers-102/setid.mat",)),
        size="345 MB",
        metric="mean_per_class",
    ),
    TorchvisionSet(
        name="pets",
        title="Oxford-IIIT Pet",
        held=Counts(3_680, 0, 3_669, 37),
        load=_pets,
        files=(("oxford-iiit-pet/images",), ("oxford-iiit-pet/annotations",)),
        size="811 MB",
        metric="mean_per_class",
    ),
    TorchvisionSet(
        name="cars",
        title="Stanford Cars",
        held=Counts(8_144, 0, 8_041, 196),
        load=by_split("StanfordCars", loader=Path),
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
        name="aircraft",
        title="FGVC-Aircraft, variants",
        held=Counts(6_667, 0, 3_333, 100),
        load=by_split("FGVCAircraft", ("trainval",), loader=Path),
        files=(("fgvc-aircraft-2013b/data",),),
        size="2.8 GB",
        metric="mean_per_class",
    ),
    TorchvisionSet(
        name="food101",
        title="Food-101",
        held=Counts(75_750, 0, 25_250, 101),
        load=by_split("Food101", loader=Path),
        files=(("food-101/images",), ("food-101/meta",)),
        size="5 GB",
    ),
    TorchvisionSet(
        name="dtd",
        title="DTD, split 1",
        held=Counts(3_760, 0, 1_880, 47),
        load=by_split("DTD", ("train", "val"), loader=Path),
        files=(("dtd/dtd/images",), ("dtd/dtd/labels",)),
        size="625 MB",
    ),
    TorchvisionSet(
        name="eurosat",
        title="EuroSAT",
        held=Counts(21_600, 0, 5_400, 10),
        load=_eurosat,
        files=(("eurosat/2750",),),
        size="94 MB",
    ),
    TorchvisionSet(
        name="caltech101",
        title="Caltech-101",
        held=Counts(3_060, 0, 6_084, 102),
        load=_caltech,
        files=(("caltech101/101_ObjectCategories",),),
        size="137 MB",
        metric="mean_per_class",
    ),
    TorchvisionSet(
        name="sun397",
        title="SUN397, partition 1",
        held=Counts(19_850, 0, 19_850, 397),
        load=_sun,
        files=(
            ("SUN397/ClassName.txt",),
            *((f"{_SUN_LISTS}/{part}_01.txt",) for part in _SUN_PARTS.values()),
        ),
        size="37 GB",
    ),
)
