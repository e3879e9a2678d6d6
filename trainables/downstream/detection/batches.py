"""Images and targets for a detector: which ones a step sees, decoded by threads ahead of the step.

What a step sees is a function of seed and step, so a resumed training sees what it would have seen.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import NamedTuple, TypeVar

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from trainables.core.errors import UserError, first_line
from trainables.core.threads import compute_alone
from trainables.downstream.detection.annotations import Picture
from trainables.downstream.detection.masks import decoded

T = TypeVar("T")
_MOST_THREADS = 8
_AHEAD = 2  # batches that are decoded before they are asked for


class Example(NamedTuple):
    """One image with its target in torchvision's form, on the CPU."""

    pixels: Tensor  # (3, H, W) uint8
    target: dict[str, Tensor]  # boxes (N, 4) float32, labels (N,) int64, and masks (N, H, W) uint8 if asked


class Drawn(NamedTuple):
    """An image of a step."""

    picture: int  # its number
    mirrored: bool


class Draws:
    """Which images each step sees: all of them in an order of their own in each epoch, without an end."""

    def __init__(self, pictures: int, batch: int, seed: int, flip: bool) -> None:
        self.pictures, self.batch, self.seed, self.flip = pictures, batch, seed, flip
        self._epoch = -1
        self._order = np.empty(0, np.int64)
        self._mirrored = np.empty(0, np.bool_)

    def of_step(self, step: int) -> list[Drawn]:
        """The `batch` images of a step, counted from 0; a batch may reach into the next epoch."""
        return [self._at(place) for place in range(step * self.batch, (step + 1) * self.batch)]

    def _at(self, place: int) -> Drawn:
        epoch, within = divmod(place, self.pictures)
        if epoch != self._epoch:
            rng = np.random.default_rng([self.seed, epoch])
            self._order = rng.permutation(self.pictures)
            self._mirrored = rng.random(self.pictures) < (0.5 if self.flip else 0.0)
            self._epoch = epoch
        at = int(self._order[within])
        return Drawn(at, bool(self._mirrored[at]))


def example(picture: Picture, categories: Sequence[str], mirrored: bool, masks: bool, field: str) -> Example:
    """The image and what a detector is trained on. Raises `UserError` at `field` for a damaged file."""
    pixels = read_pixels(picture, field)
    found = picture.trained
    boxes = torch.tensor([one.box for one in found], dtype=torch.float32).reshape(-1, 4)
    labels = torch.tensor([categories.index(one.category) + 1 for one in found], dtype=torch.int64)
    target = {"boxes": boxes, "labels": labels}
    if masks:
        planes = [_mask(picture, one.segmentation, field) for one in found]
        target["masks"] = torch.from_numpy(np.stack(planes)) if planes else torch.zeros(0, *pixels.shape[1:])
    if mirrored:
        pixels = pixels.flip(2)
        target["boxes"] = torch.stack(
            [picture.width - boxes[:, 2], boxes[:, 1], picture.width - boxes[:, 0], boxes[:, 3]], 1
        )
        if masks:
            target["masks"] = target["masks"].flip(2)
    return Example(pixels, target)


def read_pixels(picture: Picture, field: str) -> Tensor:
    """(3, H, W) uint8, as the file has them: what a camera says of its orientation is left aside.

    COCO's and VOC's annotations are of the pixels as they are stored. Raises `UserError` at `field`.
    """
    try:
        with Image.open(picture.file) as opened:
            pixels = np.array(opened.convert("RGB"))
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        problem = f"{picture.file}: cannot be decoded: {first_line(error)}"
        raise UserError(field, problem) from None
    height, width = pixels.shape[:2]
    if (width, height) != (picture.width, picture.height):
        problem = f"{picture.file}: has {width} x {height} pixels, its annotation says otherwise"
        raise UserError(field, problem, value=f"{picture.width} x {picture.height}")
    return torch.from_numpy(pixels).permute(2, 0, 1).contiguous()


def ahead(make: Callable[[T], Example], batches: Iterator[Sequence[T]]) -> Iterator[list[Example]]:
    """`make` of each item of each batch, computed by threads while the caller works on the batches before."""
    threads = min(_MOST_THREADS, torch.get_num_threads())
    pool = ThreadPoolExecutor(threads, thread_name_prefix="detection", initializer=compute_alone)
    waiting: deque[list[Future[Example]]] = deque()
    try:
        for batch in batches:
            waiting.append([pool.submit(make, item) for item in batch])
            if len(waiting) > _AHEAD:
                yield [one.result() for one in waiting.popleft()]
        while waiting:
            yield [one.result() for one in waiting.popleft()]
    finally:
        pool.shutdown(cancel_futures=True)


def _mask(picture: Picture, segmentation: object, field: str) -> np.ndarray:
    try:
        return decoded(segmentation, picture.width, picture.height)
    except ValueError as error:
        raise UserError(field, f"{picture.file}: {first_line(error)}") from None
