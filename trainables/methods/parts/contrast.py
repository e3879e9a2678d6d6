"""What MoCo-v2 and the methods built on it share: the fields of its contrast, a queue and a mean student."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from trainables.methods.base import Context, MethodConfig
from trainables.methods.parts.headed import Headed
from trainables.methods.parts.momentum_encoder import MeanStudent
from trainables.methods.parts.queue import Queue, check_queue


class ContrastConfig(MethodConfig):
    """Fields of methods that contrast queries with a mean student's past keys; MoCo-v2's values."""

    temperature: Annotated[float, Field(gt=0)] = Field(0.2, description="of the contrastive softmax")
    queue_size: Annotated[int, Field(ge=2)] = Field(
        65536, description="past keys to contrast with; a multiple of the batch, smaller than the data set"
    )
    momentum: Annotated[float, Field(ge=0, lt=1)] = Field(
        0.999, description="how slowly the mean student follows"
    )


class Contrast(Headed):
    """A method with a `queue` of keys from `mean`, the mean of student and `head`.

    `forward` gives the batch's keys to `queue.hold`. After each optimizer step `mean` follows the student,
    and the keys that were held join the queue.
    """

    config: ContrastConfig
    queue: Queue
    mean: MeanStudent

    @classmethod
    def check(cls, config: MethodConfig, context: Context) -> None:
        assert isinstance(config, ContrastConfig)
        check_queue(config.queue_size, context)

    def after_step(self, progress: float) -> None:
        self.mean.follow(self.config.momentum, student=self.student, head=self.head)
        self.queue.advance()
