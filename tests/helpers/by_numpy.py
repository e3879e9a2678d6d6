"""Parts of losses in numpy, in double precision, to compare torch's with."""

from __future__ import annotations

import numpy as np
import torch


def softmax(x: np.ndarray) -> np.ndarray:
    """Over the last dimension."""
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def units(x: torch.Tensor) -> np.ndarray:
    """Vectors of the last dimension at length 1."""
    x = x.detach().double().numpy()
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def upsampled(x: np.ndarray, side: int) -> np.ndarray:
    """Bilinear by its definition: (B, C, h, h) -> (B, C, side, side), positions at the middle of pixels."""
    own = x.shape[2]
    at = np.clip((np.arange(side) + 0.5) * own / side - 0.5, 0, own - 1)
    low = np.floor(at).astype(int)
    high, part = np.minimum(low + 1, own - 1), at - low
    weights = np.zeros((side, own))
    np.add.at(weights, (np.arange(side), low), 1 - part)
    np.add.at(weights, (np.arange(side), high), part)
    return np.einsum("ih,bchw,jw->bcij", weights, x, weights)
