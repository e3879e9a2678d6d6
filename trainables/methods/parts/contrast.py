"""What MoCo-v2 and the methods built on it share: settings of the contrast, queue and momentum encoder."""

from __future__ import annotations

from typing import TypeVar

from pydantic import Field

from trainables.methods.base import Context, MethodConfig
from trainables.methods.parts.headed import Headed
from trainables.methods.parts.momentum_encoder import MomentumEncoder
from trainables.methods.parts.queue import Queue, check_queue


class ContrastConfig(MethodConfig):
    """Settings of a contrast between queries and the past keys of a momentum encoder; MoCo-v2's values."""

    temperature: float = Field(0.2, gt=0, description="of the contrastive softmax")
    queue_size: int = Field(
        65536,
        ge=2,
        description="past keys to contrast with; a multiple of the batch, smaller than the data set",
    )
    momentum: float = Field(0.999, ge=0, lt=1, description="how slowly the momentum encoder follows")


K = TypeVar("K", bound=ContrastConfig)


class Contrast(Headed[K]):
    """A method with a `queue` of keys and a momentum encoder `mean` of student and `head`.

    `build` sets the three. `forward` gives the keys of the batch to `queue.hold`. After each optimizer step
    the momentum encoder follows the student, and the held keys join the queue.
    """

    queue: Queue
    mean: MomentumEncoder  # called `mean` in checkpoints

    @classmethod
    def check(cls, config: K, context: Context) -> None:
        """Refuse a queue that does not fit the data or the batch."""
        check_queue(config.queue_size, context)

    def after_step(self, fraction: float) -> None:
        """Move the momentum encoder and advance the queue."""
        self.mean.follow(self.config.momentum, student=self.student, head=self.head)
        self.queue.advance()
