"""What methods share that train a projection head over the student, and can be probed behind it."""

from __future__ import annotations

from torch import Tensor, nn

from trainables.methods.base import Method


class Headed(Method):
    """A method whose `head` projects the student's features: (B, D) -> (B, E)."""

    points = ("backbone", "head")
    head: nn.Module

    def features(self, images: Tensor, point: str) -> Tensor:
        features: Tensor = self.student(images)
        return self.head(features) if point == "head" else features

    def own_head(self) -> nn.Module:
        return self.head
