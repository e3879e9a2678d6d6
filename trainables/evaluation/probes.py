"""Probes: quick tests of frozen features, which say how good a student is while it trains.

    probe("ridge_5shot", train_features, train_labels, val_features, val_labels)

`ridge` is the search's yardstick: ridge regression in closed form, features standardised by the training
part, targets one-hot ±1, the bias unpenalised. One eigendecomposition serves every regularisation strength,
and the strength is the one with the smallest leave-one-out error on the training part, in closed form too,
so no validation label is ever looked at to choose it. `ridge_Kshot` does that on K labels a class, the mean
over fixed draws: few labels keep the score away from its ceiling. `knn`, `logistic` and the label-free
`rankme` stand beside it.

Shapes: R draws, N training samples, M validation samples, D feature dimensions, C classes, S strengths.
"""

from __future__ import annotations

import re
import warnings
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from trainables.core.errors import TrialFailed, UserError
from trainables.data.data_sets import DataFacts
from trainables.spec.trial import ProbeSpec

PROBES = {
    "ridge": "ridge regression in closed form on every label, percent",
    "ridge_Kshot": "the same on K labels a class (ridge_5shot, say), mean over fixed draws, percent",
    "knn": "weighted vote of the 20 nearest neighbours by cosine, percent",
    "logistic": "logistic regression, for a final score (slow), percent",
    "rankme": "effective rank of the features; needs no labels; compare within one method only",
}
_SHOTS = re.compile(r"ridge_([1-9]\d*)shot")
_STRENGTHS = [10.0**power for power in range(-5, 4)]  # times the mean eigenvalue that is not zero
_ELEMENTS = 2**26  # float64 numbers that one chunk of draws may take: 512 MiB


class ProbeResult(NamedTuple):
    """What a probe says, and how sure it is."""

    score: float  # percent, 0 to 100; RankMe: an effective number of dimensions
    se: float | None = None  # standard error over the draws of a k-shot probe, percent points


def shots(name: str) -> int | None:
    """K of `ridge_Kshot`; None for every other probe."""
    found = _SHOTS.fullmatch(name)
    return int(found[1]) if found else None


def needs_labels(name: str) -> bool:
    return name != "rankme"


def check_probe(spec: ProbeSpec, facts: DataFacts) -> None:
    """Raise `UserError` for a probe that is unknown, or that this data set has no or too few labels for."""
    for field, name in [("probe.score", spec.score), *(("probe.record", name) for name in spec.record)]:
        if name not in PROBES and shots(name) is None:
            raise UserError(field, "no such probe", value=name, choices=PROBES)
        if name == "ridge_Kshot":
            raise UserError(
                field, "K has to be a number", value=name, expected="ridge_1shot or ridge_5shot, say"
            )
        wanted = (shots(name) or 0) * facts.classes
        images = min(spec.max_images, facts.probe_images)
        if wanted > images:
            most = images // facts.classes
            raise UserError(
                field,
                f"{shots(name)} labels for each of {facts.classes} classes are more than there are images",
                value=name,
                expected=f"at most {most} a class" if most else "ridge or knn, which take what there is",
            )
    if not facts.classes and needs_labels(spec.score):
        raise UserError(
            "probe.score", "this data set has no labels to score with", value=spec.score, expected="rankme"
        )


def names(spec: ProbeSpec, classes: int) -> tuple[str, ...]:
    """The score's probe, then those recorded beside it; without labels only those that need none."""
    wanted = dict.fromkeys((spec.score, *spec.record))
    return tuple(name for name in wanted if classes or not needs_labels(name))


def probe(
    name: str,
    train_features: Tensor,
    train_labels: Tensor,
    val_features: Tensor,
    val_labels: Tensor,
    draws: int = 30,
    seed: int = 0,
) -> ProbeResult:
    """Decider features (N, D), labels (N,) by how well they predict val_labels (M,) from val_features (M, D).

    A class that the training part lacks is never predicted. A class with fewer than K labels gives a k-shot
    draw all it has; `UserError` where no class has K. `seed` fixes the draws. `TrialFailed` for features
    that are not finite.
    """
    if not bool(torch.isfinite(train_features).all()) or not bool(torch.isfinite(val_features).all()):
        raise TrialFailed(f"probe {name}: the features hold values that are not finite")
    if name == "rankme":
        return ProbeResult(rankme(train_features))
    if not len(train_labels) or not len(val_labels):
        raise UserError("probe", f"{name} needs labelled images for training and validation", value=name)
    known, targets = torch.unique(train_labels, return_inverse=True)
    if name == "ridge":
        return ProbeResult(float(ridge(train_features, targets, val_features, known, val_labels)[0]))
    count = shots(name)
    if count is not None:
        ids = draw_shots(targets.cpu().numpy(), count, draws, seed)
        scores = ridge(train_features, targets, val_features, known, val_labels, ids)
        return ProbeResult(float(scores.mean()), float(scores.std(correction=1)) / draws**0.5)
    if name == "knn":
        return ProbeResult(knn(train_features, targets, val_features, known, val_labels))
    if name == "logistic":
        return ProbeResult(logistic(train_features, train_labels, val_features, val_labels))
    raise UserError("probe", "no such probe", value=name, choices=PROBES)


def draw_shots(targets: np.ndarray, count: int, draws: int, seed: int) -> list[np.ndarray]:
    """`draws` times the positions of `count` samples of each class, fixed by (seed, count, draw)."""
    sizes = np.bincount(targets)
    if sizes.max() < count:
        raise UserError(
            "probe", f"no class has {count} labelled training images", expected=f"at most {sizes.max()} shots"
        )
    starts = np.cumsum(sizes) - sizes
    chosen = []
    for draw in range(draws):
        keys = np.random.default_rng([seed, count, draw]).random(len(targets))
        order = np.lexsort((keys, targets))  # by class, in random order within it
        rank = np.arange(len(targets)) - starts[targets[order]]
        chosen.append(np.sort(order[rank < count]))
    return chosen


def ridge(
    train: Tensor,
    targets: Tensor,
    val: Tensor,
    known: Tensor,
    val_labels: Tensor,
    draws: list[np.ndarray] | None = None,
) -> Tensor:
    """Accuracies (R,) in percent of ridge classifiers fitted on each of `draws` (None: on everything, R = 1).

    Standardised by the statistics of the whole training part, which need no labels: those of ten shots would
    blow up a feature that happens to be nearly constant on them.
    """
    train, val = standardise(train, val)
    onehot_NC = torch.nn.functional.one_hot(targets, len(known)).double().mul_(2).sub_(1)
    if draws is None:
        return _accuracies(train[None], onehot_NC[None], val, known, val_labels)
    picks = torch.from_numpy(np.stack(draws)).to(train.device)
    chunk = max(1, _ELEMENTS // (picks.shape[1] * train.shape[1]))
    parts = [_accuracies(train[p], onehot_NC[p], val, known, val_labels) for p in torch.split(picks, chunk)]
    return torch.cat(parts)


def standardise(train: Tensor, val: Tensor) -> tuple[Tensor, Tensor]:
    """Both in float64, by mean and deviation of `train`; a feature that is constant there is only centred."""
    train, val = train.double(), val.double()
    mean, std = train.mean(0), train.std(0, correction=0)
    # float32 features: below that share a deviation is rounding.
    std = torch.where(std > 1e-6 * mean.abs(), std, torch.ones_like(std))
    return (train - mean) / std, (val - mean) / std


def _accuracies(x_RND: Tensor, y_RNC: Tensor, val_MD: Tensor, known: Tensor, val_labels: Tensor) -> Tensor:
    weight_RDC, bias_R1C = ridge_fit(x_RND, y_RNC)
    chunk = max(1, _ELEMENTS // (len(val_MD) * len(known)))
    right = []
    for weight, bias in zip(torch.split(weight_RDC, chunk), torch.split(bias_R1C, chunk), strict=True):
        # One product for all draws: many times faster than a narrow one for each.
        scores_MRC = (val_MD @ weight.transpose(0, 1).flatten(1)).unflatten(1, (-1, len(known)))
        answers_MR = known[(scores_MRC + bias[:, 0]).argmax(2)]
        right.append((answers_MR == val_labels[:, None]).double().mean(0))
    return torch.cat(right) * 100


def ridge_fit(x_RND: Tensor, y_RNC: Tensor) -> tuple[Tensor, Tensor]:
    """Weights (R, D, C) and biases (R, 1, C) at the strength with the least leave-one-out squared error.

    With centred X = U S Vᵀ the fit at strength a is Ŷ = H Y, H = 1/N + U S²/(S²+a) Uᵀ, and the error of the
    fit that left sample i out is (y_i − ŷ_i)/(1 − H_ii). The smaller of XXᵀ (dual) and XᵀX (primal) is
    decomposed.
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


def knn(
    train: Tensor,
    targets: Tensor,
    val: Tensor,
    known: Tensor,
    val_labels: Tensor,
    k: int = 20,
    t: float = 0.07,
) -> float:
    """Accuracy in percent of the vote of the k nearest by cosine, each weighing exp(cosine / t)."""
    train = torch.nn.functional.normalize(train.float(), dim=1)
    val = torch.nn.functional.normalize(val.float(), dim=1)
    right = 0
    for part, labels in zip(torch.split(val, 1024), torch.split(val_labels, 1024), strict=True):
        cosine, nearest = (part @ train.T).topk(min(k, len(train)), dim=1)
        # Less the largest cosine, which changes no vote and keeps exp in range.
        weight = ((cosine - cosine[:, :1]) / t).exp()
        votes = weight.new_zeros(len(part), len(known)).scatter_add_(1, targets[nearest], weight)
        right += int((known[votes.argmax(1)] == labels).sum())
    return 100 * right / len(val)


def logistic(train: Tensor, train_labels: Tensor, val: Tensor, val_labels: Tensor) -> float:
    """Accuracy in percent of scikit-learn's logistic regression (C = 1) on standardised features."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    x, x_val = (part.cpu().numpy() for part in standardise(train, val))
    y, y_val = train_labels.cpu().numpy(), val_labels.cpu().numpy()
    if len(np.unique(y)) == 1:  # scikit-learn refuses what has only one answer
        return 100 * float((y_val == y[0]).mean())
    model: Any = LogisticRegression  # scikit-learn has no types
    with warnings.catch_warnings():
        # A fit that is cut off after 1000 steps is the same for every trial and good to a tenth of a percent.
        warnings.simplefilter("ignore", ConvergenceWarning)
        fitted = model(max_iter=1000).fit(x, y)
    return 100 * float(fitted.score(x_val, y_val))


def rankme(features: Tensor) -> float:
    """exp of the entropy of the singular values of (N, D) features as shares of their sum; 0 where all are 0.

    Garrido et al. 2023 (arXiv 2210.02885).
    """
    x = features.double()
    values = torch.linalg.eigvalsh(x @ x.T if len(x) < x.shape[1] else x.T @ x).clamp(min=0).sqrt()
    total = values.sum()
    if total <= 0:
        return 0.0
    share = values / total
    return float(torch.special.entr(share).sum().exp())
