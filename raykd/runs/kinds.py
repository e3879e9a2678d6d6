"""What a search and a study do differently while they run.

`run_of(spec)` is the one place that asks which of the two it is. Everything else that runs sweeps calls the
methods of what it returns.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from raykd.records.earlier import Earlier
from raykd.records.history import History
from raykd.runs.warm_start import earlier
from raykd.spec.search import SearchSpec, load_sweep
from raykd.spec.study import StudySpec
from raykd.spec.sweep import SweepSpec
from raykd.storage.base import Storage, SweepFolder
from trainables.core.errors import UserError

if TYPE_CHECKING:
    from raykd.ablation.rounds import Rounds
    from raykd.searching.proposer import Proposer


class SearchRun:
    """A search that runs."""

    def __init__(self, spec: SearchSpec) -> None:
        self.spec = spec

    def proposer(self, history: History) -> Proposer:
        """What chooses the next trial, as `history` left it. Raises `UserError` where the two do not fit."""
        from raykd.searching.proposer import Proposer

        proposer = Proposer(self.spec, history.samples, history.earlier)
        proposer.replay(history)
        return proposer

    def earlier(self, sweep: SweepFolder) -> Earlier | None:
        """What it has from earlier sweeps; None where it names none. Raises `UserError`."""
        return earlier(self.spec, sweep)

    def reread(self, source: Mapping[str, Any], storage: Storage | Path) -> SearchSpec:
        """The spec as its file (`Source.recorded`) says it now. Raises `UserError`."""
        folder = _folder_of(source)
        return load_sweep(source["path"], source["overrides"], folder, folder is not None)

    def refuse_extension(self, history: History, extend: int) -> None:
        """A search may always be extended."""

    def rounds_used(self, history: History) -> int:
        """A search has no rounds."""
        return 0

    def write_results(self, history: History, folder: Path) -> None:
        """The tables hold everything already."""


class StudyRun:
    """An ablation study that runs."""

    def __init__(self, spec: StudySpec) -> None:
        self.spec = spec

    def proposer(self, history: History) -> Rounds:
        """What chooses the next trial, as `history` left it."""
        from raykd.ablation.rounds import Rounds

        rounds = Rounds(self.spec, samples=history.samples)
        rounds.replay(history)
        return rounds

    def earlier(self, sweep: SweepFolder) -> None:
        """Nothing: an arm is not chosen by scores."""

    def reread(self, source: Mapping[str, Any], storage: Storage | Path) -> StudySpec:
        """The spec as its file says it now. Raises `UserError`."""
        from raykd.ablation.study import load_study

        folder = _folder_of(source)
        return load_study(source["path"], source["overrides"], storage, folder, folder is not None)

    def refuse_extension(self, history: History, extend: int) -> None:
        """`UserError` for replicates that would claim too much, or would answer nothing."""
        from raykd.ablation.conclusions import conclude

        rules = self.spec.study
        if rules.decide:
            raise UserError(
                "--extend",
                f"by replicate {rules.replicates} `decide` has spent all of the error that it may make, "
                f"alpha = {rules.alpha:g}: what is open then stays open",
                value=extend,
                expected="a `max_replicates` as large as you can pay for, since clear arms stop early; a "
                "study with a larger one and another name takes these seeds again, so the two together may "
                f"claim a difference that is not there in up to {2 * rules.alpha:g} of all studies",
            )
        if rules.precision is None:
            return
        arms = conclude(self.spec, history).arms
        if all(arm.verdict.reason == "precision" for arm in arms if arm.verdict is not None):
            problem = f"every interval is within ± {rules.precision:g} points already"
            raise UserError(
                "--extend", problem, value=extend, expected="another study with a smaller `precision`"
            )

    def rounds_used(self, history: History) -> int:
        """How many rounds, from the first, its looks have used: the results of these have to stay."""
        from raykd.ablation.rounds import rounds_used

        return rounds_used(self.spec, history)

    def write_results(self, history: History, folder: Path) -> None:
        """Write what the data support so far into the sweep's folder."""
        from raykd.ablation.by_task import by_task
        from raykd.ablation.conclusions import conclude
        from raykd.ablation.report import write

        write(conclude(self.spec, history), folder, list(by_task(self.spec, history).values()))


def run_of(spec: SweepSpec) -> SearchRun | StudyRun:
    """The part of a run that is of this kind of sweep."""
    if isinstance(spec, StudySpec):
        return StudyRun(spec)
    assert isinstance(spec, SearchSpec)
    return SearchRun(spec)


def _folder_of(source: Mapping[str, Any]) -> Path | None:
    """The folder that the sweep was started in; ledgers before format 1 do not hold it."""
    return Path(source["folder"]) if source.get("folder") else None
