"""Preparing and reading a data set of ImageNet's kind: images/s a core, memory, and the hours for all of it.

    python benchmarks/prepare.py                       # about 4 minutes on two cores; prints tables
    python benchmarks/prepare.py --images 500          # fewer pictures

The pictures are JPEGs of 500 x 375 pixels, smooth noise with grain, drawn by a seeded generator: as large as
ImageNet's (about 110 kB). Their content costs a decoder about what a photograph costs.

- prepare   `open_data` with an empty cache, for raw pixels of several sizes and for JPEGs. The figure a core
            is images a second of CPU time, so that other processes on the machine change it little. Memory is
            the peak of a process of its own, for a quarter of the pictures and for all of them.
- workers   the same conversion by threads, as `open_data` does it, and by processes: images a second
- read      batches in an epoch's order off a store, decoded: warm, and cold (`posix_fadvise` drops its
            pages from memory) with the kernel told what comes next and without
- list      the listing of a folder of many files: read, and from the cache
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from trainables.core.limits import cpus
from trainables.data import store_images
from trainables.data.data_sets import open_data, store_folder
from trainables.data.loader import fetch
from trainables.data.sources.parts.files import read_files
from trainables.data.sources.parts.listing_cache import files_digest, find_files
from trainables.data.store_images import Images
from trainables.data.store_kinds import Jpegs, Kind, Squares
from trainables.spec.trial import DataSpec

IMAGENET = 1_281_167 + 50_000
WIDTH, HEIGHT = 500, 375
KINDS: dict[str, dict[str, Any]] = {
    "raw, 32 px": {"image_size": 32},
    "raw, 64 px": {"image_size": 64},
    "raw, 256 px, whole": {"image_size": 224, "margin": 32, "fit": "whole"},
    "jpeg, short side 256": {"image_size": 224, "margin": 32, "fit": "whole", "keep": "jpeg"},
}
BATCH = 256
ADVISED, NOT_ADVISED = 0, 1 << 60  # from how many bytes on a store is


def picture(rng: np.random.Generator) -> bytes:
    """One JPEG: noise at a twelfth of the size, enlarged, with grain."""
    coarse = rng.normal(128, 50, (HEIGHT // 12, WIDTH // 12, 3)).clip(0, 255).astype(np.uint8)
    smooth = Image.fromarray(coarse).resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC)
    pixels = np.asarray(smooth) + rng.normal(0, 7, (HEIGHT, WIDTH, 3))
    file = io.BytesIO()
    Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(file, "JPEG", quality=95)
    return file.getvalue()


def make_pictures(folder: Path, count: int) -> int:
    """`count` pictures of two classes; returns their mean size. A tenth are different, the others copies."""
    rng = np.random.default_rng(0)
    drawn = [picture(rng) for _ in range(max(2, count // 10))]
    for i in range(count):
        path = folder / f"class{i % 2}" / f"{i:06}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(drawn[i % len(drawn)])
    return sum(map(len, drawn)) // len(drawn)


def spec_of(folder: Path, kind: str) -> DataSpec:
    """The data set of `folder`, kept as `kind` says."""
    return DataSpec.model_validate({"name": "folder", "path": folder, **KINDS[kind]})


def prepare(folder: Path, kind: str) -> dict[str, float]:
    """Prepare a data set in this process."""
    with tempfile.TemporaryDirectory() as cache:
        spec, start = spec_of(folder, kind), time.perf_counter()
        before = resource.getrusage(resource.RUSAGE_SELF)
        data = open_data(spec, Path(cache))
        after, wall = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter() - start
        spent = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        size = (store_folder(spec, Path(cache)) / "train.arrow").stat().st_size
        count = len(data.train)
    return {"images": count, "wall": wall, "cpu": spent, "bytes": size, "peak": after.ru_maxrss * 1024}


def apart(folder: Path, kind: str) -> dict[str, float]:
    """`prepare` in a process of its own, whose peak of memory is its own."""
    command = [sys.executable, __file__, "--prepare", str(folder), kind]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    result: dict[str, float] = json.loads(done.stdout)
    return result


def preparing(few: Path, many: Path) -> None:
    """Print the table of preparing."""
    print(
        "\n| kept as | images/s, all cores | images/s a core | MB peak, 1/4 and all images | kB an image |",
        end="",
    )
    print(" ImageNet: GB | hours on 8 cores |\n|---|---|---|---|---|---|---|")
    for kind in KINDS:
        part, done = apart(few, kind), apart(many, kind)
        core, each = done["images"] / done["cpu"], done["bytes"] / done["images"]
        peaks = f"{part['peak'] / 1e6:.0f}, {done['peak'] / 1e6:.0f}"
        print(
            f"| {kind} | {done['images'] / done['wall']:.0f} | {core:.0f} | {peaks} | {each / 1e3:.1f} "
            f"| {each * IMAGENET / 1e9:.0f} | {IMAGENET / core / 8 / 3600:.2f} |"
        )


def convert(kind: Kind, paths: list[Path]) -> int:
    """Convert some pictures; returns the bytes they became."""
    return sum(len(kind.convert(path).content) for path in paths)


def workers(folder: Path) -> None:
    """Print threads against processes."""
    paths, count = sorted(folder.rglob("*.jpg")), int(cpus().value)
    groups = [paths[i : i + 32] for i in range(0, len(paths), 32)]
    print(
        f"\n| converted by | {count} threads | {count} processes | threads / processes |\n|---|---|---|---|"
    )
    for name, kind in {"raw, 256 px": Squares(256, whole=True), "jpeg 256": Jpegs(256)}.items():
        speeds = []
        pools: list[Executor] = [ThreadPoolExecutor(count), ProcessPoolExecutor(count)]
        for pool in pools:
            with pool:
                list(pool.map(convert, [kind] * count, groups[:count]))  # start the workers
                start = time.perf_counter()
                list(pool.map(convert, [kind] * len(groups), groups))
                speeds.append(len(paths) / (time.perf_counter() - start))
        print(f"| {name} | {speeds[0]:.0f} images/s | {speeds[1]:.0f} | {speeds[0] / speeds[1]:.2f} |")


def forget(path: Path) -> None:
    """Drop a file's pages from memory."""
    with path.open("rb") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def epoch(images: Images) -> float:
    """Images a second of one epoch in drawn order."""
    order = np.random.default_rng(1).permutation(len(images))
    batches = np.split(order, range(BATCH, len(order), BATCH))
    start = time.perf_counter()
    with contextlib.closing(fetch(images, batches, torch.device("cpu"))) as fetched:
        for _ in fetched:
            pass
    return len(images) / (time.perf_counter() - start)


def reading(folder: Path) -> None:
    """Print the table of reading."""
    threads = torch.get_num_threads()
    print(
        f"\n| read, {threads} threads | warm: images/s | cold, advised | cold, not advised | advised / not |"
    )
    print("|---|---|---|---|---|")
    for kind in list(KINDS)[2:]:
        with tempfile.TemporaryDirectory() as cache:
            spec = spec_of(folder, kind)
            speeds: list[float] = []
            for how in (ADVISED, ADVISED, ADVISED, NOT_ADVISED):
                store_images._ADVISED_BYTES = how
                images = open_data(spec, Path(cache)).train
                if len(speeds) > 1:
                    forget(images.path)
                speeds.append(epoch(images))
                del images
        warm, cold, plain = speeds[1:]
        print(f"| {kind} | {warm:.0f} | {cold:.0f} | {plain:.0f} | {cold / plain:.2f} |")


def listing(count: int) -> None:
    """Print the seconds of a listing."""
    with tempfile.TemporaryDirectory() as place:
        cache, root = Path(place) / "cache", Path(place) / "data"
        cache.mkdir()  # a listing makes none
        os.environ["RAYKD_CACHE"] = str(cache)
        for i in range(count):
            path = root / f"n{i % 1000:08}" / f"n{i % 1000:08}_{i}.JPEG"
            if i < 1000:
                path.parent.mkdir(parents=True)
            path.touch()
        time.sleep(2.5)  # younger folders are not kept in the cache
        seconds = []
        for call in (read_files, find_files, find_files, files_digest):
            start = time.perf_counter()
            call(root, (".jpeg",))
            seconds.append(time.perf_counter() - start)
    print(f"\n| {count} files in 1000 folders | read | read and kept | names from the cache | digest |")
    print("|---|---|---|---|---|")
    print(f"| s | {' | '.join(f'{one:.3f}' for one in seconds)} |")


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--images", type=int, default=4000)
    parser.add_argument("--files", type=int, default=200_000, help="of the folder that is listed")
    parser.add_argument("--prepare", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.prepare:
        print(json.dumps(prepare(Path(options.prepare[0]), options.prepare[1])))
        return
    with tempfile.TemporaryDirectory() as place:
        few, many = Path(place) / "few", Path(place) / "many"
        make_pictures(few, options.images // 4)
        size = make_pictures(many, options.images)
        print(f"{options.images} JPEGs of {WIDTH} x {HEIGHT}, {size / 1e3:.0f} kB each")
        preparing(few, many)
        workers(many)
        reading(many)
    listing(options.files)


if __name__ == "__main__":
    main()
