"""Data sets that torchvision reads and students are trained on. `transfer_sets.py` has those for transfer."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from trainables.data.sources.base import Counts, Part, Sample
from trainables.data.sources.parts.torchvision_set import TorchvisionSet, by_flag, by_split


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


SOURCES = (
    TorchvisionSet(
        name="cifar10",
        title="CIFAR-10",
        held=Counts(50_000, 0, 10_000, 10),
        load=by_flag("CIFAR10"),
        files=(("cifar-10-batches-py",),),
        size="170 MB",
    ),
    TorchvisionSet(
        name="cifar100",
        title="CIFAR-100",
        held=Counts(50_000, 0, 10_000, 100),
        load=by_flag("CIFAR100"),
        files=(("cifar-100-python",),),
        size="169 MB",
    ),
    TorchvisionSet(
        name="svhn",
        title="SVHN",
        held=Counts(73_257, 0, 26_032, 10),
        load=by_split("SVHN"),
        files=(("train_32x32.mat",), ("test_32x32.mat",)),
        size="246 MB",
        home="svhn",
    ),
    TorchvisionSet(
        name="stl10",
        title="STL-10",
        held=Counts(5_000, 100_000, 8_000, 10),
        load=by_split("STL10"),
        files=(("stl10_binary",),),
        size="2.6 GB",
        more=_stl10_unlabelled,
    ),
    TorchvisionSet(
        name="mnist",
        title="MNIST",
        held=Counts(60_000, 0, 10_000, 10),
        load=by_flag("MNIST"),
        files=(("MNIST/raw",),),
        size="12 MB",
    ),
    TorchvisionSet(
        name="imagenet",
        title="ImageNet",
        held=Counts(1_281_167, 0, 50_000, 1000),
        load=by_split("ImageNet", test="val", loader=Path),
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
