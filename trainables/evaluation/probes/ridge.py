"""Ridge regression in closed form: the score that a search uses, on all labels or on a few of each class.

Features are standardised by the training part, targets are one-hot ±1, the bias is not penalised. One
eigendecomposition serves every regularisation strength. The strength is the one with the smallest
leave-one-out error on the training part, in closed form too: no validation label is used to choose it. Few
labels keep the score away from its ceiling.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from trainables.evaluation.probes.base import Features, Probe, ProbeResult

if TYPE_CHECKING:
    from torch import Tensor

_SHOTS = re.compile(r"ridge_([1-9]\d*)shot")


class Ridge(Probe):
    """On every label."""

    label = "ridge"
    summary = "ridge regression in closed form on every label, percent"

    def score(self, features: Features, draws: int, seed: int) -> ProbeResult:
        """Percent of validation images that are classified right."""
        import torch

        from trainables.evaluation.ridge_regression import ridge

        known, targets = torch.unique(features.train_labels, return_inverse=True)
        accuracies = ridge(features.train, targets, features.val, known, features.val_labels)
        return ProbeResult(float(accuracies[0]))

    def hits(self, features: Features, draws: int, seed: int) -> Tensor:
        """(M,) float64: 1 for a validation image that is classified right, else 0."""
        import torch

        from trainables.evaluation.ridge_regression import ridge_hits

        known, targets = torch.unique(features.train_labels, return_inverse=True)
        return ridge_hits(features.train, targets, features.val, known, features.val_labels)


class RidgeShots(Probe):
    """On K labels of each class, `ridge_Kshot`: the mean over fixed draws, with its standard error."""

    label = "ridge_Kshot"
    summary = "the same on K labels a class (ridge_5shot, say), mean over fixed draws, percent"

    @classmethod
    def named(cls, name: str) -> Probe | None:
        """The probe for the number of labels in `name`."""
        return cls(name) if _SHOTS.fullmatch(name) else None

    @property
    def shots(self) -> int:
        """K."""
        found = _SHOTS.fullmatch(self.name)
        assert found is not None
        return int(found[1])

    def score(self, features: Features, draws: int, seed: int) -> ProbeResult:
        """Percent of validation images that are classified right. A class with fewer labels gives all it has.

        `UserError` where no class has K labels.
        """
        import torch

        from trainables.evaluation.ridge_regression import draw_shots, ridge

        known, targets = torch.unique(features.train_labels, return_inverse=True)
        ids = draw_shots(targets.cpu().numpy(), self.shots, draws, seed)
        accuracies = ridge(features.train, targets, features.val, known, features.val_labels, ids)
        return ProbeResult(float(accuracies.mean()), float(accuracies.std(correction=1)) / draws**0.5)

    def hits(self, features: Features, draws: int, seed: int) -> Tensor:
        """(M,) float64: of each validation image the share of draws in which it is classified right.

        `UserError` as of `score`.
        """
        import torch

        from trainables.evaluation.ridge_regression import draw_shots, ridge_hits

        known, targets = torch.unique(features.train_labels, return_inverse=True)
        ids = draw_shots(targets.cpu().numpy(), self.shots, draws, seed)
        return ridge_hits(features.train, targets, features.val, known, features.val_labels, ids)
