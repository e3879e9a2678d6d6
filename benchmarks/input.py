"""Images a second into two MoCo-v2 views: raykd against torchvision's transforms in a DataLoader.

    python benchmarks/input.py                      # 32, 64 and 224 px; 3 minutes on two cores
    python benchmarks/input.py --sizes 224 --device cuda

Both sides make two views of every image of an epoch and have them on the device. torchvision's side is the
usual MoCo-v2 transform of transforms.v2 on uint8 tensors, in a DataLoader with two workers. It starts once
from images that are decoded, resized and in memory (`stored`), and once from JPEG files of 500 x 375 pixels
(`files`). raykd's side reads its store, once of decoded squares (`raw`) and once of whole pictures as JPEG
with a short side of 256 pixels (`jpeg`), and makes the views of a batch in the process that trains. Rounds of
the sides alternate; the table has medians.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision.io import ImageReadMode, decode_image, read_file
from torchvision.transforms import v2

from trainables.data.data_sets import open_data
from trainables.data.loader import fetch
from trainables.data.store_images import Images
from trainables.spec.normalisation import IMAGENET
from trainables.spec.trial import DataSpec, ViewSpec
from trainables.views.augmented import Views
from trainables.views.parameter_table import BLUR_SIGMA, blur_reach

FILES, WIDTH, HEIGHT = 512, 500, 375
MARGIN = {32: 4, 64: 8, 224: 32}  # pixels that stored images are wider than views
EPOCH = {32: 4096, 64: 2048, 224: 512}  # images of a round
Side = Callable[[], None]  # one epoch


def main() -> None:
    parser = argparse.ArgumentParser(description="Two MoCo-v2 views of an image, raykd against torchvision.")
    parser.add_argument("--sizes", type=int, nargs="+", default=list(MARGIN), choices=list(MARGIN))
    parser.add_argument("--batch", type=int, default=128, help="images a batch")
    parser.add_argument("--workers", type=int, default=2, help="processes of the DataLoader")
    parser.add_argument("--rounds", type=int, default=3, help="epochs of each side that are timed")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    asked = parser.parse_args()
    device = torch.device(asked.device)
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, {device}, batches of {asked.batch}")
    print(f"{'pixels':>6} {'raykd':>6} {'img/s':>7} {'stored':>7} {'ratio':>6} {'files':>7} {'ratio':>6}")
    with tempfile.TemporaryDirectory() as folder:
        pictures = Path(folder) / "pictures"
        write_pictures(pictures)
        for size in asked.sizes:
            spec = DataSpec(name="folder", path=pictures, image_size=size, margin=MARGIN[size])
            whole = spec.model_copy(update={"keep": "jpeg", "fit": "whole"})
            raw, jpeg = (open_data(each, Path(folder) / "cache").train for each in (spec, whole))
            sides = [
                raykd(raw, size, asked.batch, device),
                raykd(jpeg, size, asked.batch, device),
                torchvision(Stored(raw, size), asked.batch, asked.workers, device),
                torchvision(Files(pictures, size), asked.batch, asked.workers, device),
            ]
            *ours, stored, files = (EPOCH[size] / seconds for seconds in timed(sides, asked.rounds, device))
            for name, speed in zip(("raw", "jpeg"), ours, strict=True):
                ratios = [f"{theirs:7.0f} {speed / theirs:6.2f}" for theirs in (stored, files)]
                print(f"{size:6} {name:>6} {speed:7.0f}", *ratios, flush=True)


def timed(sides: list[Side], rounds: int, device: torch.device) -> list[float]:
    """Median seconds of an epoch of each; one before those is not timed."""
    seconds: list[list[float]] = [[] for _ in sides]
    for _ in range(rounds + 1):
        for side, took in zip(sides, seconds, strict=True):
            began = time.perf_counter()
            side()
            if device.type == "cuda":
                torch.cuda.synchronize()
            took.append(time.perf_counter() - began)
    return [statistics.median(took[1:]) for took in seconds]


def raykd(images: Images, size: int, batch: int, device: torch.device) -> Side:
    """Views as training makes them."""
    views = Views(ViewSpec(recipe="moco_v2"), images.size, size, len(images), 2, 0, images.aspect)
    epochs = iter(range(10**6))

    def epoch() -> None:
        drawn = views.epoch(next(epochs))
        ids = np.resize(np.random.default_rng(0).permutation(len(images)), EPOCH[size])
        with closing(fetch(images, np.split(ids, range(batch, len(ids), batch)), device)) as fetched:
            for pixels, those in fetched:
                drawn.apply_all(pixels, those)

    return epoch


def torchvision(
    dataset: Dataset[tuple[Tensor, Tensor]], batch: int, workers: int, device: torch.device
) -> Side:
    """Views made by the workers of a DataLoader, which live from epoch to epoch."""
    cuda = device.type == "cuda"
    loader = DataLoader(
        dataset, batch, shuffle=True, num_workers=workers, persistent_workers=True, pin_memory=cuda
    )

    def epoch() -> None:
        for pair in loader:
            for view in pair:
                view.to(device, non_blocking=True)

    return epoch


class Stored(Dataset[tuple[Tensor, Tensor]]):
    """Two views of decoded images in memory, by torchvision."""

    def __init__(self, images: Images, size: int) -> None:
        self.images, self.transform, self.count = (
            images.take(np.arange(len(images))),
            moco_v2(size),
            EPOCH[size],
        )

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, i: int) -> tuple[Tensor, Tensor]:
        image = self.images[i % len(self.images)]
        return self.transform(image), self.transform(image)


class Files(Dataset[tuple[Tensor, Tensor]]):
    """Two views of JPEG files, by torchvision."""

    def __init__(self, folder: Path, size: int) -> None:
        self.paths, self.transform, self.count = sorted(folder.rglob("*.jpg")), moco_v2(size), EPOCH[size]

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, i: int) -> tuple[Tensor, Tensor]:
        image = decode_image(read_file(str(self.paths[i % len(self.paths)])), ImageReadMode.RGB)
        return self.transform(image), self.transform(image)


def moco_v2(size: int) -> v2.Compose:
    """MoCo-v2's transform with raykd's kernel size of the blur."""
    kernel = 2 * blur_reach(size) + 1
    return v2.Compose(
        [
            v2.RandomResizedCrop(size, scale=(0.2, 1.0), antialias=True),
            v2.RandomApply([v2.ColorJitter(0.4, 0.4, 0.4, 0.1)], p=0.8),
            v2.RandomGrayscale(p=0.2),
            v2.RandomApply([v2.GaussianBlur(kernel, BLUR_SIGMA)], p=0.5),
            v2.RandomHorizontalFlip(),
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize(*IMAGENET),
        ]
    )


def write_pictures(folder: Path) -> None:
    """JPEG files with shapes at several scales, about as large as photographs of their size (60 KB)."""
    rng = np.random.default_rng(0)
    for i in range(FILES):
        picture = np.zeros((HEIGHT, WIDTH, 3), np.float32)
        for scale in (4, 16, 64, 256):
            small = rng.normal(0, 12 * np.log2(scale) ** 0.5, (HEIGHT // scale + 2, WIDTH // scale + 2, 3))
            layer = [
                Image.fromarray(small[..., c].astype(np.float32)).resize(
                    (WIDTH, HEIGHT), Image.Resampling.BICUBIC
                )
                for c in range(3)
            ]
            picture += np.stack([np.asarray(channel) for channel in layer], 2)
        path = folder / f"class{i % 2}" / f"{i:04}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray((picture + 128).clip(0, 255).astype(np.uint8)).save(path, quality=90)


if __name__ == "__main__":
    main()
