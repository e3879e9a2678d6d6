"""Views -> what a network takes: its size, its normalisation, its order of channels."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from trainables.spec.inputs import Inputs
from trainables.spec.normalisation import IMAGENET, Normalisation


class Feed(nn.Module):
    """Converts views (B, 3, H, W), normalised by ImageNet's values, to the input that a network takes.

    Views of its size, normalisation and order are returned as they are. It has no weights: all follows from
    the spec.
    """

    scale: Tensor | None  # (3, 1, 1), applied to a view's pixels; None: not converted
    shift: Tensor | None
    black: Tensor  # (3, 1, 1), the values of pixels 0 and 1 in views
    white: Tensor

    def __init__(self, inputs: Inputs) -> None:
        super().__init__()
        self.inputs = inputs
        scale = shift = None
        (mean, std), (own_mean, own_std) = _values(IMAGENET), _values(inputs.normalisation)
        if not inputs.normalisation.like(IMAGENET):
            scale, shift = (std / own_std).float(), ((mean - own_mean) / own_std).float()
        self.register_buffer("scale", scale, persistent=False)
        self.register_buffer("shift", shift, persistent=False)
        if inputs.image_size is not None:
            self.register_buffer("black", (-mean / std).float(), persistent=False)
            self.register_buffer("white", ((1 - mean) / std).float(), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, 3, image_size, image_size), or with the sides that they have."""
        size = self.inputs.image_size
        if size is not None and images.shape[2:] != (size, size):
            images = F.interpolate(images, (size, size), mode=self.inputs.interpolation, antialias=True)
            if self.inputs.interpolation == "bicubic":  # it overshoots at edges; Pillow's integers cannot
                images = torch.minimum(torch.maximum(images, self.black), self.white)
        if self.scale is not None and self.shift is not None:
            images = torch.addcmul(self.shift, images, self.scale)
        return images.flip(1) if self.inputs.channels == "bgr" else images


def _values(normalisation: Normalisation) -> tuple[Tensor, Tensor]:
    """Mean and deviation, (3, 1, 1) float64."""
    mean, std = (torch.tensor(values, dtype=torch.float64).view(3, 1, 1) for values in normalisation)
    return mean, std
