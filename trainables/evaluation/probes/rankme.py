"""RankMe (Garrido et al. 2023, arXiv 2210.02885): the effective rank of the features, without labels."""

from __future__ import annotations

from trainables.evaluation.probes.base import Features, Probe, ProbeResult


class RankMe(Probe):
    """exp of the entropy of the singular values of the training features as shares of their sum."""

    label = "rankme"
    summary = "effective rank of the features; needs no labels; compare within one method only"
    needs_labels = False
    comparable = False
    counts_images = False
    title = "effective rank of its features"

    def score(self, features: Features, draws: int, seed: int) -> ProbeResult:
        """An effective number of dimensions; 0 where all features are 0."""
        import torch

        x = features.train.double()
        values = torch.linalg.eigvalsh(x @ x.T if len(x) < x.shape[1] else x.T @ x).clamp(min=0).sqrt()
        total = values.sum()
        if total <= 0:
            return ProbeResult(0.0)
        return ProbeResult(float(torch.special.entr(values / total).sum().exp()))
