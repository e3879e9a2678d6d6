"""From views, normalised by ImageNet's mean and deviation, to the pixels that a network was trained on."""

from __future__ import annotations

import torch
from torch import Tensor

from trainables.spec.normalisation import IMAGENET, LUMINANCE, Normalisation


def conversion(trained: Normalisation, channels: int) -> tuple[Tensor | None, Tensor | None]:
    """(scale, shift) of a view's pixels; (None, None): they are as in the training.

    For three channels both are (3, 1, 1). For one, `scale` is (3, 1, 1) and `shift` (1, 1, 1): the sum of the
    scaled channels and the shift is the view's luminance, normalised by `trained.grey`.
    """
    view_mean, view_std = (torch.tensor(values, dtype=torch.float64).view(3, 1, 1) for values in IMAGENET)
    if channels == 1:
        mean, std = trained.grey
        weights = torch.tensor(LUMINANCE, dtype=torch.float64).view(3, 1, 1)
        shift = ((weights * view_mean).sum(0, keepdim=True) - mean) / std
        return (weights * view_std / std).float(), shift.float()
    if trained.like(IMAGENET):
        return None, None
    own_mean, own_std = (torch.tensor(values, dtype=torch.float64).view(3, 1, 1) for values in trained)
    return (view_std / own_std).float(), ((view_mean - own_mean) / own_std).float()
