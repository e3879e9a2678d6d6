"""The weighted nearest-neighbour classifier of Wu et al. 2018 (arXiv 1805.01978), as DINO's code sets it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from trainables.evaluation.probes.base import Features, Probe, ProbeResult

if TYPE_CHECKING:
    from torch import Tensor

K = 20  # neighbours
TEMPERATURE = 0.07


class Knn(Probe):
    """The vote of the K nearest training images by cosine, each weighing exp(cosine / TEMPERATURE)."""

    label = "knn"
    summary = "weighted vote of the 20 nearest neighbours by cosine, percent"

    def score(self, features: Features, draws: int, seed: int) -> ProbeResult:
        """Percent of validation images that are classified right."""
        right = self.hits(features, draws, seed)
        return ProbeResult(100 * int(right.sum()) / len(right))

    def hits(self, features: Features, draws: int, seed: int) -> Tensor:
        """(M,) float64: 1 for a validation image that is classified right, else 0."""
        import torch
        from torch.nn.functional import normalize

        known, targets = torch.unique(features.train_labels, return_inverse=True)
        train, val = normalize(features.train.float(), dim=1), normalize(features.val.float(), dim=1)
        right = []
        for part, labels in zip(torch.split(val, 1024), torch.split(features.val_labels, 1024), strict=True):
            cosine, nearest = (part @ train.T).topk(min(K, len(train)), dim=1)
            # The largest cosine is subtracted, which changes no vote and keeps exp in range.
            weight = ((cosine - cosine[:, :1]) / TEMPERATURE).exp()
            votes = weight.new_zeros(len(part), len(known)).scatter_add_(1, targets[nearest], weight)
            right.append((known[votes.argmax(1)] == labels).double())
        return torch.cat(right)
