"""The file of an ablation study: its keys, with types and defaults."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from raykd.spec.arms import Budget, Design, Published, Retune
from raykd.spec.description import Description
from raykd.spec.evaluate_section import Evaluate
from raykd.spec.sections import BaselineSpec, Section, TargetsSpec, WorkersSpec, parse_duration
from raykd.spec.sweep_fields import MOST_TRIALS, Reference
from raykd.spec.tracking import Track, TrackSpec


class StudyFile(Description):
    """An ablation study: a base, what varies, and how sure the answer must be."""

    name: str = Field(description="the study's folder")
    plugins: tuple[str, ...] = Field(
        (), description="modules of your own that define methods, data sources or probes"
    )
    base: Section = Field(description="what all arms share; or `sweep: NAME`, the best trial of that sweep")
    design: Design
    factors: dict[str, tuple[Any, ...]] = Field({}, description="field -> levels")
    components: dict[str, Section] = Field({}, description="component -> the settings that take it away")
    arms: dict[str, Section] = Field({}, description="of compare: label -> settings, `method`, `epochs`")
    resolution: Annotated[int, Field(ge=3, le=5)] | None = Field(
        None, description="of factorial: a fraction; None: every combination"
    )
    against: str | None = Field(None, description="of compare: the arm to compare with; None: the first")
    replicates: Annotated[int, Field(ge=1, le=MOST_TRIALS)] | None = Field(
        None, description="seeds of every arm"
    )
    precision: Annotated[float, Field(gt=0)] | None = Field(
        None, description="points: more replicates until every interval is at most as wide to each side"
    )
    decide: bool = Field(False, description="more replicates while it is open whether an arm differs")
    max_replicates: Annotated[int, Field(ge=1, le=MOST_TRIALS)] | None = Field(
        None, description="of precision and decide: where they end"
    )
    budget: Budget = Field("epochs", description="epochs | steps | compute: what is equal between the arms")
    retune: Retune | None = Field(
        None, description="each arm's own search first: how many configurations, or `samples` and `axes`"
    )
    margin: Annotated[float, Field(ge=0)] = Field(0.0, description="points that make no difference")
    alpha: Annotated[float, Field(gt=0, lt=1)] = Field(0.05, description="error over the whole study")
    score_at: Literal["last", "best"] = Field("last", description="the score of which epoch counts")
    allow: tuple[str, ...] = Field((), description="fields in which arms may differ from the base as well")
    published: Published | None = Field(None, description="a paper's own numbers, shown beside ours")
    workers: WorkersSpec = WorkersSpec()
    lanes: Annotated[int, Field(ge=1)] | None = Field(None, description="at most so many trials at once")
    targets: TargetsSpec = TargetsSpec()
    time_limit: Annotated[float, Field(gt=0), BeforeValidator(parse_duration)] | None = Field(
        None, description="seconds, or such as 2h30m"
    )
    references: tuple[Reference, ...] | None = Field(None, description="what the results stand beside")
    baseline: BaselineSpec | None = Field(None, description="the no-teacher row")
    attempts: Annotated[int, Field(ge=1)] = Field(
        3, description="how often a trial is tried before it has failed"
    )
    failures_in_a_row: Annotated[int, Field(ge=1)] | None = Field(
        5, description="after so many trials in a row that fail for one reason the study stops"
    )
    track: Track = Field(TrackSpec(), description="experiment trackers: wandb, mlflow")
    evaluate: Evaluate = Field(None, description="suites for every arm, after the trials")
    keep_checkpoints: Literal["unfinished", "all"] = Field(
        "unfinished", description="of which trials checkpoints stay: of those that may go on, or all"
    )
