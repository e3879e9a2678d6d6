"""What methods share that train a projection head over the student's features."""

from __future__ import annotations

from torch import nn

from trainables.methods.base import C, Method


class Headed(Method[C]):
    """A method whose `head` projects the student's features, (B, D) -> (B, E); the head can be probed too."""

    points = ("backbone", "head")
    head: nn.Module

    def own_head(self) -> nn.Module:
        """The head. See `Method.own_head`."""
        return self.head
