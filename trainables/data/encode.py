"""Features of images without augmentation, for probes, references and methods."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor

from trainables.core.heartbeat import heartbeat
from trainables.core.precision import whole_float32
from trainables.core.workers import alone, from_each, on_each, rank, world_size
from trainables.data.data_sets import DataSet
from trainables.data.loader import fetch, images_on
from trainables.data.store_images import Images
from trainables.views.augmented import PlainView, plain

Encode = Callable[[Tensor], Tensor]  # (B, 3, H, W) normalised -> (B, D)
# encoder, images, ids, view (an integer: so many pixels in the middle), device -> features (N, D) in float32
EncodeImages = Callable[[Encode, Images, np.ndarray, PlainView | int, torch.device], Tensor]
BATCH = 256  # images encoded at once


@torch.no_grad()
def encode_images(
    encode: Encode, images: Images, ids: np.ndarray, view: PlainView | int, device: torch.device
) -> Tensor:
    """Features (N, D) of the plain views of `ids`; (0, 0) for none.

    In full float32 on every device, so that features from a CPU and from a GPU compare.
    """
    batches = np.split(ids, range(BATCH, len(ids), BATCH)) if len(ids) else []
    features = []
    with whole_float32(), contextlib.closing(fetch(images, batches, device)) as fetched:
        for number, (batch, those) in enumerate(fetched, 1):
            heartbeat(f"encoding images, batch {number}/{len(batches)}")
            features.append(encode(plain(batch, view, aspect_of(images, those))).float())
    return torch.cat(features) if features else torch.zeros(0, 0, device=device)


@torch.no_grad()
def encode_together(
    encode: Encode,
    images: Images,
    ids: np.ndarray,
    view: PlainView | int,
    device: torch.device,
    encoder: EncodeImages = encode_images,
) -> Tensor:
    """`encoder` with the work shared: every worker calls this, and each encodes a part of `ids`.

    The features are returned on the first worker, and (0, 0) on the others. The batches that one worker would
    encode are dealt out whole: so the features are the same bits on the CPU for any number of workers. An
    error of one worker is raised on all.
    """
    workers = world_size()
    if workers == 1 or not len(ids):
        return encoder(encode, images, ids, view, device)
    share = -(-len(ids) // (workers * BATCH)) * BATCH  # images of a worker; the last ones may have fewer
    mine = ids[rank() * share : (rank() + 1) * share]

    def part() -> Tensor:
        with alone():  # the workers make different numbers of passes, so none may wait for another
            return encoder(encode, images, mine, view, device)

    own = on_each(part)
    dim = max(from_each(own.shape[1]))
    padded = own.new_zeros(share, dim)
    padded[: len(own), : own.shape[1]] = own
    parts = [torch.empty_like(padded) for _ in range(workers)] if rank() == 0 else None
    dist.gather(padded, parts, dst=0)
    return own.new_zeros(0, 0) if parts is None else torch.cat(parts)[: len(ids)]


def aspect_of(images: Images, ids: np.ndarray) -> np.ndarray | None:
    """(B,) width / height of these pictures; None where they are stored as squares."""
    return None if images.aspect is None else images.aspect[ids]


class TrainingImages:
    """The training images, for `Method.begin`; held-out images are not among them.

    Ids are those of `Batch.ids`: they name the same image in every order.
    """

    def __init__(
        self,
        data: DataSet,
        view: PlainView | int,
        device: torch.device,
        encoder: EncodeImages = encode_images,
    ) -> None:
        self._images, self._view, self._device = data.train, view, device
        self._encoder = encoder  # one that reads what a teacher said before, or `encode_images`
        self.ids = torch.from_numpy(data.train_ids)  # (N,) int64, rising
        self.labels = torch.from_numpy(data.train.labels[data.train_ids])  # (N,) int64; -1: none
        self.classes = data.classes  # 0 without labels
        part = hashlib.sha256(data.train_ids.tobytes()).hexdigest()[:12]
        self.fingerprint = (
            f"{data.fingerprint}-{part}-{view}"  # of all images and labels that are visible here
        )

    def plain(self, ids: Tensor) -> Tensor:
        """(A,) ids -> (A, 3, S, S) normalised, un-augmented views, on the trial's device."""
        rows = ids.cpu().numpy()
        images = images_on(self._images, rows, self._device)
        return plain(images, self._view, aspect_of(self._images, rows))

    def encode(self, encode: Encode, ids: Tensor) -> Tensor:
        """(A,) ids -> features (A, D) in float32, without gradient."""
        return self._encoder(encode, self._images, ids.cpu().numpy(), self._view, self._device)
