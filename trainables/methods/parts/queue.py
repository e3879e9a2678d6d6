"""A queue of past embeddings: the negatives of MoCo and of everything built on it.

Keys are held while a step is computed and join the queue after it (`Method.after_step`), in the order of the
global batch. So no tensor changes that a gradient still needs, and the queue holds the same keys for every
number of workers and micro-batches.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trainables.core.distributed import gather
from trainables.core.errors import UserError
from trainables.core.workers import world_size
from trainables.methods.base import Context, Need


class Queue(nn.Module):
    """The last `size` keys, (K, D), of unit length. It starts with random directions, as in MoCo."""

    rows: Tensor  # (K, D)
    seen: Tensor  # scalar int64: number of keys that ever joined; the next goes to row seen % K

    def __init__(self, size: int, dim: int) -> None:
        super().__init__()
        self.register_buffer("rows", F.normalize(torch.randn(size, dim), dim=1))
        self.register_buffer("seen", torch.zeros((), dtype=torch.int64))
        self._held: list[Tensor] = []
        self._count: int | None = 0  # `seen` on the host; None: not read yet
        self.register_load_state_dict_post_hook(_forget_count)  # type: ignore[no-untyped-call]

    @property
    def count(self) -> int:
        """`seen` as a number. It is read from the device once, after a checkpoint was loaded."""
        if self._count is None:
            self._count = int(self.seen)
        return self._count

    @property
    def filled(self) -> Tensor:
        """(K,), bool: the rows that hold a key; the others are still random directions."""
        return torch.arange(len(self.rows), device=self.rows.device) < self.seen

    def joined(self, keys: Tensor) -> Tensor:
        """The rows (K, D) as they will be when these keys (B, D) have joined; the queue does not change.

        For losses that compare with past keys and those of the batch. `keys` are of all workers.
        """
        keys = keys.detach().to(self.rows.dtype)[-len(self.rows) :]
        index = (self.seen + torch.arange(len(keys), device=keys.device)) % len(self.rows)
        return self.rows.index_copy(0, index, keys)

    def hold(self, keys: Tensor) -> None:
        """Keep this worker's keys (B, D) of one micro-batch until `advance`; in eval mode, do nothing."""
        if self.training:
            self._held.append(keys.detach().to(self.rows.dtype))

    def advance(self) -> None:
        """Add the held keys of all workers, micro-batch by micro-batch, in each of them worker by worker."""
        if not self._held:
            return
        sizes = [len(keys) for keys in self._held]
        shares = gather(torch.cat(self._held)).chunk(world_size())
        self._held.clear()
        pieces = [share.split_with_sizes(sizes) for share in shares]
        self._enqueue(torch.cat([worker[step] for step in range(len(sizes)) for worker in pieces]))

    def _enqueue(self, keys: Tensor) -> None:
        size = len(self.rows)
        joined = len(keys)
        keys = keys[-size:]
        # The position stays on the device. Reading it would make the host wait in every step.
        first = self.seen + (joined - len(keys))
        index = (first + torch.arange(len(keys), device=keys.device)) % size
        self.rows.index_copy_(0, index, keys)
        self.seen += joined
        if self._count is not None:
            self._count += joined


def _forget_count(queue: Queue, _incompatible: object) -> None:
    queue._count = None


def queue_need(queue_size: int, *dims: int) -> Need:
    """Memory of queues of one size with rows of these widths (float32)."""
    return Need("config.queue_size", "the queue's rows", kept=4 * queue_size * sum(dims))


def check_queue(queue_size: int, context: Context) -> None:
    """Raise `UserError` for a queue that is not smaller than the data set or not a multiple of the batch.

    In a queue as large as the data set an image is its own negative (measured on digits: -8 points).
    """
    batch, images = context.batch_size, context.train_size
    largest = (images - 1) // batch * batch
    if largest == 0:
        raise UserError(
            "optim.batch_size",
            f"one batch is not smaller than the {images} training images, so no queue of keys fits",
            value=batch,
            expected=f"at most {images - 1}",
        )
    if queue_size < images and queue_size % batch == 0:
        return
    below = min(queue_size // batch * batch, largest)
    allowed = sorted({value for value in (below, below + batch) if 0 < value <= largest})
    near = " or ".join(str(value) for value in allowed)
    raise UserError(
        "config.queue_size",
        f"the queue must be smaller than the {images} training images"
        if queue_size >= images
        else f"the queue must be divisible by the global batch of {batch}",
        value=queue_size,
        expected=f"a multiple of {batch} (the global batch) below {images} (training images): {near}",
    )
