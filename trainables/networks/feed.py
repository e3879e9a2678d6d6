"""Views -> what a network takes: its size, its normalisation, its order of channels."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from trainables.spec.inputs import Inputs
from trainables.spec.normalisation import IMAGENET, LUMINANCE, Normalisation


class Feed(nn.Module):
    """Converts views (B, 3, H, W), normalised by ImageNet's values, to the input that a network takes.

    Views of its size, normalisation and order are returned as they are. A network with one channel takes
    their luminance. It has no weights: all follows from the spec.
    """

    scale: Tensor | None  # (3, 1, 1), applied to a view's pixels; None: not converted
    shift: Tensor | None  # (channels, 1, 1)
    black: Tensor  # (3, 1, 1), the values of pixels 0 and 1 in views
    white: Tensor

    def __init__(self, inputs: Inputs, channels: int = 3) -> None:
        super().__init__()
        self.inputs, self.channels = inputs, channels
        scale, shift = _conversion(inputs.normalisation, channels)
        self.register_buffer("scale", scale, persistent=False)
        self.register_buffer("shift", shift, persistent=False)
        if inputs.image_size is not None:
            mean, std = _columns(IMAGENET)
            self.register_buffer("black", (-mean / std).float(), persistent=False)
            self.register_buffer("white", ((1 - mean) / std).float(), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, channels, image_size, image_size), or with the sides that they have."""
        size = self.inputs.image_size
        if size is not None and images.shape[2:] != (size, size):
            images = F.interpolate(images, (size, size), mode=self.inputs.interpolation, antialias=True)
            if self.inputs.interpolation == "bicubic":  # it overshoots at edges; Pillow's integers cannot
                images = torch.minimum(torch.maximum(images, self.black), self.white)
        if self.scale is not None and self.shift is not None:
            if self.channels == 1:
                return (images * self.scale).sum(1, keepdim=True) + self.shift
            images = torch.addcmul(self.shift, images, self.scale)
        return images.flip(1) if self.inputs.channels == "bgr" else images


def _conversion(trained: Normalisation, channels: int) -> tuple[Tensor | None, Tensor | None]:
    """(scale, shift) of a view's pixels; (None, None): they are as in the training.

    For three channels both are (3, 1, 1). For one, `scale` is (3, 1, 1) and `shift` (1, 1, 1): the sum of the
    scaled channels and the shift is the view's luminance, normalised by `trained.grey`.
    """
    view_mean, view_std = _columns(IMAGENET)
    if channels == 1:
        mean, std = trained.grey
        weights = torch.tensor(LUMINANCE, dtype=torch.float64).view(3, 1, 1)
        shift = ((weights * view_mean).sum(0, keepdim=True) - mean) / std
        return (weights * view_std / std).float(), shift.float()
    if trained.like(IMAGENET):
        return None, None
    own_mean, own_std = _columns(trained)
    return (view_std / own_std).float(), ((view_mean - own_mean) / own_std).float()


def _columns(normalisation: Normalisation) -> tuple[Tensor, Tensor]:
    """Mean and deviation, (3, 1, 1) float64."""
    mean, std = (torch.tensor(values, dtype=torch.float64).view(3, 1, 1) for values in normalisation)
    return mean, std
