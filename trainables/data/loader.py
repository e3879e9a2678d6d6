"""The images of each step, and their transfer to the device while the step before runs.

The order of an epoch is drawn from (seed, epoch) over all images and cut into global batches; each worker
takes its slice of every batch. So the number of workers does not change which step sees an image.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Generator, Sequence
from itertools import zip_longest
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from trainables.core.workers import sent
from trainables.data.jpeg_images import JpegImages
from trainables.data.store_images import Images
from trainables.spec.trial import OptimSpec

_AHEAD = 3  # batches fetched before they are needed
_ADVISED = 4  # further batches that the kernel reads from the disk meanwhile


def order(
    ids: np.ndarray, seed: int, epoch: int, optim: OptimSpec, rank: int, workers: int
) -> list[np.ndarray]:
    """This worker's ids in an epoch, one array a micro-batch; the last, smaller batch is dropped."""
    steps = len(ids) // optim.batch_size
    drawn = np.random.default_rng([seed % 2**64, epoch]).permutation(ids)[: steps * optim.batch_size]
    return list(drawn.reshape(steps * optim.accumulate, workers, -1)[:, rank])


def fetch(
    images: Images, batches: Sequence[np.ndarray], device: torch.device
) -> Generator[tuple[Tensor, np.ndarray]]:
    """Yield the uint8 images (B, 3, S, S) of each batch of ids on `device`, and the ids.

    A thread reads ahead and copies to the device, on a GPU from pinned memory and on a stream of its own, so
    that copies and steps run at once. Close the iterator (`contextlib.closing`) to end the thread.
    """
    ready: queue.Queue[_Sent | BaseException | None] = queue.Queue(_AHEAD)
    stop = threading.Event()
    send = _sender(images, device)

    def put(item: _Sent | BaseException | None) -> None:
        while not stop.is_set():
            try:
                return ready.put(item, timeout=0.1)
            except queue.Full:
                continue

    def read() -> None:
        try:
            for ahead in batches[:_ADVISED]:
                images.advise(ahead)
            for ids, ahead in zip_longest(batches, batches[_ADVISED:]):
                if stop.is_set():
                    return
                if ahead is not None:
                    images.advise(ahead)
                put(send(ids))
            put(None)
        except BaseException as error:  # raised where the batch is asked for
            put(error)

    thread = threading.Thread(target=read, name="loader", daemon=True)
    thread.start()
    try:
        while (item := ready.get()) is not None:
            if isinstance(item, BaseException):
                raise item
            yield item.arrived(), item.ids
    finally:
        stop.set()
        thread.join()


def images_on(images: Images, ids: np.ndarray, device: torch.device) -> Tensor:
    """The images (B, 3, S, S), uint8, of these ids on `device`, decoded there if they are to be."""
    if device.type == "cuda" and isinstance(images, JpegImages) and images.gpu:
        return images.take_on(ids, device)
    return sent(images.take(ids), device)


class _Sent(NamedTuple):
    """A batch on its way to the device."""

    images: Tensor
    ids: np.ndarray
    copied: torch.cuda.Event | None = None  # None: it is there

    def arrived(self) -> Tensor:
        """The images, for work that is queued on the device after this call."""
        if self.copied is not None:
            stream = torch.cuda.current_stream(self.images.device)
            stream.wait_event(self.copied)
            self.images.record_stream(stream)  # else their memory might be used again too early
        return self.images


def _sender(images: Images, device: torch.device) -> Callable[[np.ndarray], _Sent]:
    """What sends a batch to the device; the device alone waits for it."""
    if device.type != "cuda":
        return lambda ids: _Sent(images_on(images, ids, device), ids)
    stream = torch.cuda.Stream(device)

    def send(ids: np.ndarray) -> _Sent:
        with torch.cuda.stream(stream):
            return _Sent(images_on(images, ids, device), ids, stream.record_event())

    return send
