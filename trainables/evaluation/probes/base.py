"""What a probe offers: how it scores features, and what its number may be used for."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, NamedTuple

if TYPE_CHECKING:
    from torch import Tensor


class Features(NamedTuple):
    """Frozen features of both parts, with the labels that belong to them. All on one device, all finite."""

    train: Tensor  # (N, D)
    train_labels: Tensor  # (N,) int64
    val: Tensor  # (M, D)
    val_labels: Tensor  # (M,) int64


class ProbeResult(NamedTuple):
    """The number of a probe, and how sure it is."""

    score: float  # percent, 0 to 100, if the probe `counts_images`; else a number of its own
    se: float | None = None  # standard error over the draws of a k-shot probe, percent points


@dataclass(frozen=True)
class Probe(ABC):
    """A quick test of frozen features.

    Its settings are in its name (`ridge_5shot`), because metrics are recorded by the probe's name. `label`
    and `named` are for that; other probes leave them as they are.
    """

    name: str  # as in `probe.score`, `probe.record` and the metric `probe/NAME`
    label: ClassVar[str]  # the name in lists of probes: `ridge_Kshot` for every K
    summary: ClassVar[str]  # one line for a user
    needs_labels: ClassVar[bool] = True
    comparable: ClassVar[bool] = True  # across methods and networks; else within one method alone
    counts_images: ClassVar[bool] = True  # its score is the percentage of images that were classified right
    higher_is_better: ClassVar[bool] = True  # a search maximises its score, so others can only be recorded
    slow: ClassVar[bool] = False  # many seconds for 10,000 images: for the test scores of an exported student
    title: ClassVar[str] = ""  # what its number is, where that is shown beside a teacher's training

    @classmethod
    def named(cls, name: str) -> Probe | None:
        """The probe called `name`, if that is one of this class."""
        return cls(name) if name == cls.label else None

    @property
    def shots(self) -> int | None:
        """Labels of each class that one draw takes; None for a probe that takes all labels."""
        return None

    @abstractmethod
    def score(self, features: Features, draws: int, seed: int) -> ProbeResult:
        """The number for these features. `draws` and `seed` are for probes that take random subsets.

        Import torch and whatever else is large in here: `raykd status` reads a probe's flags without them.
        """

    def hits(self, features: Features, draws: int, seed: int) -> Tensor | None:
        """(M,) float64: of each validation image the share of draws in which it is classified right.

        Their mean is `score` over 100. Networks are compared image by image by them. None for a probe that
        says nothing about single images.
        """
        return None
