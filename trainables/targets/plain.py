"""A teacher's answers to images without augmentation, encoded once a node and read from then on.

Fitted classifiers, anchors and the teacher's row of a comparison need them.
"""

from __future__ import annotations

import time

import numpy as np
import torch
from torch import Tensor

from trainables.core.file_lock import FileLock
from trainables.core.heartbeat import heartbeat
from trainables.core.precision import whole_float32
from trainables.data.encode import BATCH, Encode, encode_images
from trainables.data.store_images import Images
from trainables.targets.series import can_be_shared, plain
from trainables.targets.store import Place, TargetStore
from trainables.teachers.teacher import Teacher, What
from trainables.views.augmented import PlainView

_POLL_S = 0.1
_LONGEST_WAIT_S = 600.0  # the longest wait for another process, which may hang, before the work is done twice
_ASKED: dict[str, What] = {"features": "features", "embed": "embed", "logits": "logits"}


class PlainTargets:
    """Takes the place of `data.encode.encode_images`.

    What a `Teacher` says (`encode` is its `features`, `embed` or `logits`) is read from the store, or kept
    there. The first process to ask computes it, and others wait for it. Other encoders are called as they
    are.
    """

    def __init__(self, store: TargetStore) -> None:
        self._store = store

    def __call__(
        self, encode: Encode, images: Images, ids: np.ndarray, view: PlainView | int, device: torch.device
    ) -> Tensor:
        """Features (N, D) in float32 of the plain views of `ids`, as `encode_images` gives them."""
        teacher, what = getattr(encode, "__self__", None), _ASKED.get(getattr(encode, "__name__", ""))
        if not isinstance(teacher, Teacher) or what is None or not can_be_shared(teacher) or not len(ids):
            return encode_images(encode, images, ids, view, device)
        with whole_float32():  # as `encode_images` computes
            place = Place(plain(teacher, what, images, ids, view, BATCH, device), 0, 0)
        found, lock = self._wait(place, ids)
        if lock is None:
            if found is None:
                found = encode_images(encode, images, ids, view, device)
            return found.to(device)
        try:
            found = self._store.get(place, ids)  # by a process that finished before the lock was taken
            if found is None:
                found = encode_images(encode, images, ids, view, device)
                self._store.put(place, ids, found.cpu())
            return found.to(device)
        finally:
            self._store.release(place, lock)

    def _wait(self, place: Place, ids: np.ndarray) -> tuple[Tensor | None, FileLock | None]:
        """The answers, or the lock of who has to make them; neither where they would not be kept."""
        waited = 0.0
        size = len(ids) * (4 * place.series.width + 8)
        while True:
            self._store.used(place.series)
            found = self._store.get(place, ids)
            if found is not None or waited > _LONGEST_WAIT_S or not self._store.admits(place.epoch, size):
                return found, None
            lock = self._store.lock(place)
            if lock is not None or self._store.broken:
                return None, lock
            heartbeat("waiting for another process that encodes the same images")
            time.sleep(_POLL_S)
            waited += _POLL_S
