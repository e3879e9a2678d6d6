"""Ridge classifiers in closed form, many at once, each with the strength that leaving one out picks.

Shapes: R draws, N training samples, M validation samples, D feature dimensions, C classes, S strengths.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from trainables.core.errors import UserError
from trainables.data.splits import few_of_each

_STRENGTHS = [10.0**power for power in range(-5, 4)]  # times the mean of the eigenvalues that are not zero
_ELEMENTS = 2**26  # float64 numbers that one chunk of draws may take: 512 MiB


def ridge(
    train: Tensor,
    targets: Tensor,
    val: Tensor,
    known: Tensor,
    val_labels: Tensor,
    draws: list[np.ndarray] | None = None,
) -> Tensor:
    """Accuracies (R,) in percent of ridge classifiers fitted on each of `draws`; R = 1 on all samples.

    `train` (N, D), `val` (M, D) and `val_labels` (M,) are as for a probe. `known` (C,) are the classes of the
    training part, and `targets` (N,) are indices into it. Features are standardised by all of the training
    part, which needs no labels. The statistics of ten shots would blow up a feature that is nearly constant
    on them.
    """
    rights = _right(train, targets, val, known, val_labels, draws)
    return torch.cat([right_MR.double().mean(0) * 100 for right_MR in rights])


def ridge_hits(
    train: Tensor,
    targets: Tensor,
    val: Tensor,
    known: Tensor,
    val_labels: Tensor,
    draws: list[np.ndarray] | None = None,
) -> Tensor:
    """(M,) float64: of each validation sample the share of draws in which it is classified right.

    Arguments as of `ridge`.
    """
    rights = _right(train, targets, val, known, val_labels, draws)
    count = torch.stack([right_MR.sum(1) for right_MR in rights]).sum(0)
    return count.double() / (1 if draws is None else len(draws))


def _right(
    train: Tensor,
    targets: Tensor,
    val: Tensor,
    known: Tensor,
    val_labels: Tensor,
    draws: list[np.ndarray] | None,
) -> Iterator[Tensor]:
    """Which validation samples are classified right (M, R), for some of the draws at a time."""
    train, val = standardise(train, val)
    onehot_NC = torch.nn.functional.one_hot(targets, len(known)).double().mul_(2).sub_(1)
    if draws is None:
        yield from _answered(train[None], onehot_NC[None], val, known, val_labels)
        return
    picks = torch.from_numpy(np.stack(draws)).to(train.device)
    chunk = max(1, _ELEMENTS // (picks.shape[1] * train.shape[1]))
    for p in torch.split(picks, chunk):
        yield from _answered(train[p], onehot_NC[p], val, known, val_labels)


def standardise(train: Tensor, val: Tensor) -> tuple[Tensor, Tensor]:
    """Both parts in float64, by mean and deviation of `train`. A feature that is constant is centred."""
    train, val = train.double(), val.double()
    mean, std = train.mean(0), train.std(0, correction=0)
    # The features were float32: a deviation below that share of the mean is rounding.
    std = torch.where(std > 1e-6 * mean.abs(), std, torch.ones_like(std))
    return (train - mean) / std, (val - mean) / std


def _answered(
    x_RND: Tensor, y_RNC: Tensor, val_MD: Tensor, known: Tensor, val_labels: Tensor
) -> Iterator[Tensor]:
    """Which validation samples are classified right (M, R), for some of the fits at a time."""
    weight_RDC, bias_R1C = ridge_fit(x_RND, y_RNC)
    chunk = max(1, _ELEMENTS // (len(val_MD) * len(known)))
    for weight, bias in zip(torch.split(weight_RDC, chunk), torch.split(bias_R1C, chunk), strict=True):
        # One product for all draws is many times faster than a narrow one for each.
        scores_MRC = (val_MD @ weight.transpose(0, 1).flatten(1)).unflatten(1, (-1, len(known)))
        answers_MR = known[(scores_MRC + bias[:, 0]).argmax(2)]
        yield answers_MR == val_labels[:, None]


def ridge_fit(x_RND: Tensor, y_RNC: Tensor) -> tuple[Tensor, Tensor]:
    """Weights (R, D, C) and biases (R, 1, C) at the strength with the least leave-one-out squared error.

    `x_RND` are features, `y_RNC` targets of ±1. With centred X = U S Vᵀ the fit at strength a is Ŷ = H Y with
    H = 1/N + U S²/(S²+a) Uᵀ. The error at sample i of a fit without it is (y_i − ŷ_i)/(1 − H_ii). The smaller
    of XXᵀ (dual) and XᵀX (primal) is decomposed.
    """
    size, dim = x_RND.shape[1:]
    mean_x, mean_y = x_RND.mean(1, keepdim=True), y_RNC.mean(1, keepdim=True)
    x, y = x_RND - mean_x, y_RNC - mean_y
    dual = size <= dim
    values_RK, vectors = torch.linalg.eigh(x @ x.mT if dual else x.mT @ x)
    values_RK = values_RK.clamp(min=0)
    left_RNK = vectors if dual else x @ vectors  # U, or U S
    inner_RKC = left_RNK.mT @ y
    scale_R1 = values_RK.sum(1, keepdim=True) / max(1, min(size - 1, dim))
    strengths_RS = scale_R1.clamp(min=1e-30) * torch.tensor(_STRENGTHS, dtype=x.dtype, device=x.device)

    errors = []
    for strength_R1 in torch.split(strengths_RS, 1, dim=1):
        shrunk_RK = (values_RK if dual else 1.0) / (values_RK + strength_R1)
        residual = y - left_RNK @ (shrunk_RK[:, :, None] * inner_RKC)
        leverage = (left_RNK.square() @ shrunk_RK[:, :, None]) + 1 / size
        errors.append((residual / (1 - leverage).clamp(min=1e-12)).square().mean((1, 2)))
    best_R1 = torch.stack(errors, 1).argmin(1, keepdim=True)
    strength_R1 = strengths_RS.gather(1, best_R1)

    solved = vectors @ (inner_RKC / (values_RK + strength_R1)[:, :, None])
    weight_RDC = x.mT @ solved if dual else solved
    return weight_RDC, mean_y - mean_x @ weight_RDC


def draw_shots(targets: np.ndarray, count: int, draws: int, seed: int) -> list[np.ndarray]:
    """`draws` times the positions of `count` samples of each class, fixed by (seed, count, draw).

    A class with fewer samples gives all it has. `UserError` where no class has `count`.
    """
    most = int(np.bincount(targets).max())
    if most < count:
        problem = f"no class has {count} labelled training images"
        raise UserError("probe", problem, expected=f"at most {most} shots")
    return [few_of_each(targets, count, np.random.default_rng([seed, count, draw])) for draw in range(draws)]
