"""The results of a study, as plain data: `conclusions.py` works them out, reports and costs show them."""

from __future__ import annotations

from dataclasses import dataclass

from raykd.spec.arms import ArmSpec, StudyRules
from raykd.stats import Comparison, FactorialResult, Ranking, Verdict


@dataclass(frozen=True)
class ArmResult:
    """One arm. Scores are points, by replicate; NaN where there is none."""

    label: str
    spec: ArmSpec
    scores: tuple[float, ...]
    finished: int
    failed: int
    waiting: int  # replicates of the plan that have not ended
    mean: float
    sd: float
    iqm: float
    epochs: int
    flops: float | None  # of a whole trial; None where they were not counted
    compute: float  # the same over the base's; NaN likewise
    wall_s: float  # of a trial, mean
    comparison: Comparison | None  # with the base; None of the base itself
    verdict: Verdict | None  # of a sequential study
    pairing: float  # variance of paired differences over that of unpaired ones
    published: float | None


@dataclass(frozen=True)
class Results:
    """A study's results. `arms` in the order of the study."""

    name: str
    rules: StudyRules
    score: str  # the probe
    arms: tuple[ArmResult, ...]
    ranking: Ranking | None  # of `compare`
    effects: FactorialResult | None  # of `factorial`
    budget: str
    notes: tuple[str, ...]
    done: bool

    @property
    def base(self) -> ArmResult:
        return next(arm for arm in self.arms if arm.label == self.rules.base)
