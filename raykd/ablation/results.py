"""The results of a study as plain data: `conclusions.py` computes them, tables and pages show them."""

from __future__ import annotations

from dataclasses import dataclass

from raykd.spec.arms import ArmSpec, StudyRules
from raykd.stats.comparison import Comparison
from raykd.stats.effects import FactorialResult
from raykd.stats.ranks import Ranking
from raykd.stats.sequential import Verdict


@dataclass(frozen=True)
class ArmResult:
    """The result of one arm. Scores are points, by replicate; NaN where there is none."""

    label: str
    spec: ArmSpec
    scores: tuple[float, ...]
    finished: int
    failed: int
    waiting: int  # planned replicates that have not ended
    mean: float
    sd: float
    iqm: float
    epochs: int
    flops: float | None  # of a whole trial; None where they were not counted
    compute: float  # flops over those of the base; NaN where they were not counted
    wall_s: float  # seconds of a trial, mean
    comparison: Comparison | None  # with the base; None for the base itself
    verdict: Verdict | None  # of a sequential study
    pairing: float  # variance of paired differences over that of unpaired ones
    published: float | None  # the paper's number


@dataclass(frozen=True)
class Results:
    """The results of a study; `arms` are in the order of the study."""

    name: str
    rules: StudyRules
    score: str  # the name of the probe
    arms: tuple[ArmResult, ...]
    ranking: Ranking | None  # only of the design `compare`
    effects: FactorialResult | None  # only of the design `factorial`
    budget: str  # in words
    notes: tuple[str, ...]
    done: bool
    by: str = ""  # the task of a suite that gives the scores; "" for the probe of the search

    @property
    def scored(self) -> str:
        """The score that is compared, in words."""
        if self.by:
            return f"{self.by}, by the student of its best epoch, test split"
        at = (
            "the last epoch" if self.rules.score_at == "last" else "the best epoch (which favours noisy arms)"
        )
        return f"{self.score} at {at}, validation split"

    @property
    def base(self) -> ArmResult:
        """The arm that the others are compared with."""
        return next(arm for arm in self.arms if arm.label == self.rules.base)
