"""A sweep that has begun: what it has found, and what can be done with it.

Every access reads the ledger, so it shows the present, also while another process drives the sweep.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict, cast, overload

from raykd.api.places import storage_of as storage_of
from raykd.api.session import driving, manners
from raykd.api.trial import Trial
from raykd.console.live import Console
from raykd.console.wording import ranked
from raykd.records import views
from raykd.records.history import History
from raykd.storage.base import Storage, SweepFolder
from trainables.core.errors import SweepFailed, UserError

if TYPE_CHECKING:
    import pyarrow as pa

    from raykd.overview.compare import Comparison
    from raykd.searching.importance import Importances
    from raykd.spec.sweep import SweepSpec


class Status(TypedDict):
    """How a sweep stands, as `raykd status --json` prints it."""

    name: str
    state: str  # running | interrupted | done
    driver: dict[str, Any] | None  # host and pid of the process that drives it
    samples: int
    trials: dict[str, int]  # status -> number
    lane_s: float  # seconds of lanes so far, where a budget counts them
    refused: int  # configurations whose student is over a limit, or cannot take the images
    best: dict[str, Any] | None
    repairs: list[dict[str, Any]]
    quarantine: list[dict[str, Any]]


class Sweep:
    """A search that has begun. `raykd.search` and `raykd.open` return one; a study is a `Study`."""

    def __init__(self, folder: SweepFolder) -> None:
        self.folder = folder

    @property
    def name(self) -> str:
        """Its name, which is that of its folder in the storage."""
        return self.folder.name

    @property
    def path(self) -> Path:
        """Its folder on this machine; of a remote storage the working copy."""
        return self.folder.path

    def history(self) -> History:
        """All that its ledger says now. Raises `UserError` for a ledger that cannot be read."""
        with manners():
            return views.read(self.folder)

    @property
    def status(self) -> Status:
        """How it stands: its driver, and its trials by status."""
        with manners():
            return cast("Status", views.status(self.history(), self.folder))

    @property
    def spec(self) -> SweepSpec:
        """What it was started with. Raises `UserError` for one that this raykd cannot go by."""
        from raykd.records.recorded_spec import spec_of

        return spec_of(self.history())

    @property
    def trials(self) -> pa.Table:
        """One row a trial: settings, status, scores. The columns are those of trials.parquet.

        `.to_pandas()` makes a data frame.
        """
        from raykd.records.tables import trials_table

        return trials_table(self.history())

    @property
    def curves(self) -> pa.Table:
        """One row a trial and epoch, one column a metric. The columns are those of curves.parquet."""
        from raykd.records.tables import curves_table

        return curves_table(self.history())

    @property
    def references(self) -> dict[str, dict[str, float]]:
        """What scores stand beside (`teacher`, `untrained`, `raw_pixels`, `baseline`): name -> metrics."""
        return {name: dict(record["metrics"]) for name, record in self.history().references.items()}

    def trial(self, name: str) -> Trial:
        """The trial called `name`, 8 hex digits or their beginning. Raises `UserError` if there is none."""
        history = self.history()
        return Trial(history.find(name), history, self.folder)

    @overload
    def best(self) -> Trial: ...

    @overload
    def best(self, n: int) -> list[Trial]: ...

    def best(self, n: int | None = None) -> Trial | list[Trial]:
        """The best trial; with `n` the `n` best, fewer where fewer have a score.

        With several seeds the first one is of the setting whose replicates are best on average, as
        `raykd best` says. Raises `SweepFailed` while no trial has a score.
        """
        history = self.history()
        first = history.best()
        if first is None:
            raise SweepFailed("no trial of this sweep has a score yet")
        if n is None:
            return Trial(first, history, self.folder)
        others = [trial for trial, *_ in ranked(history) if trial.best and trial is not first]
        return [Trial(record, history, self.folder) for record in [first, *others][: max(0, n)]]

    def front(self) -> list[Trial]:
        """The trials that no other one beats in score and is as small as, the smallest first.

        Sizes are those of `objective`, else multiply-adds. A stopped trial counts with the score that it had
        reached; with several seeds the mean of a configuration counts. Raises `SweepFailed` while there is
        none.
        """
        from raykd.searching.front import front

        history = self.history()
        return [Trial(one.trial, history, self.folder) for one in front(history)]

    def importance(
        self, evaluator: str = "fanova", *, resamples: int = 200, progress: Console | None = None
    ) -> Importances:
        """Which axes matter, with bootstrap intervals; evaluators are fanova, pedanova and mdi."""

        def tell(done: int, total: int) -> None:
            if progress is not None and done < total:
                progress.progress("resamples", done, total)

        with manners():
            from raykd.records.recorded_spec import spec_of
            from raykd.searching.importance import importances

            history = self.history()
            return importances(spec_of(history), history, evaluator, resamples=resamples, progress=tell)

    def report(
        self, out: str | Path | None = None, *, by: str | None = None, progress: Console | None = None
    ) -> Path:
        """Write one HTML page that needs no network and return it; by default report.html in its folder.

        `by` is the score of a task, `evaluate/SUITE/TASK`, by which the arms of a study are compared.
        """

        def tell(done: int, total: int) -> None:
            if progress is not None and done < total:
                progress.progress("resamples of importances", done, total)

        with manners():
            from raykd.report import write

            return write(self.folder, Path(out).expanduser() if out is not None else None, tell, by)

    def export(
        self,
        out: str | Path,
        trial: str | None = None,
        *,
        formats: str | Iterable[str] = (),
        licence: str | None = None,
        progress: Console | None = None,
    ) -> Path:
        """Write a trial's config, command, student and model card into the new folder `out`.

        Without `trial` it is the best one. `formats` are among timm (which is demanded then), onnx and
        torch_export; `licence`, an identifier of the Hugging Face hub, stands on the card. The test split is
        read, once, for the card. Returns the folder. Raises `UserError` where `out` is in use, the trial has
        left no student, or a format is unknown, lacks its packages, or cannot hold this student.
        """
        with manners():
            from raykd.export.trial import export

            tell = None if progress is None else progress.text
            return export(self.folder, trial, Path(out).expanduser(), formats, licence, tell)

    def export_front(
        self,
        out: str | Path,
        *,
        formats: str | Iterable[str] = (),
        licence: str | None = None,
        progress: Console | None = None,
    ) -> list[Path]:
        """Export each trial of `front` into the folder of its name in `out`, as `export` does.

        Returns the folders, that of the smallest student first. Raises what `export` and `front` raise.
        """
        folder = Path(out).expanduser()
        how: dict[str, Any] = {"formats": formats, "licence": licence, "progress": progress}
        return [self.export(folder / trial.name, trial.name, **how) for trial in self.front()]

    def evaluate(
        self,
        on: str | Path | Sequence[str | Path],
        *,
        best: int = 1,
        sample: int = 0,
        trials: Sequence[str] = (),
        beside: Sequence[str] = ("teacher", "start", "baseline"),
        base: str | None = None,
        address: str | None = None,
        progress: bool | Console | None = None,
    ) -> dict[str, Any]:
        """Run suites of tasks on its best students, or on every arm of a study; see `raykd.evaluate`."""
        from raykd.api.evaluating import evaluate

        return evaluate(
            self.name, on, best=best, sample=sample, trials=trials, beside=beside, base=base,
            storage=self.folder.storage, address=address, progress=progress,
        )  # fmt: skip

    @property
    def evaluations(self) -> pa.Table:
        """One row a network, task and seed of its suite. The columns are those of evaluations.parquet."""
        from raykd.records.evaluations import evaluations_table

        return evaluations_table(self.history().evaluated)

    def resume(
        self,
        extend: int = 0,
        *,
        as_started: bool = False,
        repair: bool = False,
        address: str | None = None,
        progress: bool | Console | None = None,
    ) -> None:
        """Go on where it was interrupted, and try `extend` more configurations (of a study: replicates).

        `as_started`: even if the spec's file has changed since. `repair`: mend a damaged ledger first; the
        damaged one is kept. `address` and `progress` are those of `raykd.search`. Returns when every trial
        has ended or the time limit is reached. Raises `UserError` where it cannot go on.
        """
        if extend < 0:
            raise UserError("extend", "is below 0", value=extend)
        with driving(progress) as console:
            from raykd.runs import repair as ledger_repair
            from raykd.runs import sweep as engine

            if repair:
                said = ledger_repair.repair(self.folder)
                console.warn(said or "the ledger is whole: there is nothing to repair")
            place = engine.Place(self.folder, address)
            engine.resume(place, console, extend=extend, as_started=as_started)

    def __repr__(self) -> str:
        from raykd.console.wording import standing

        kind, said = type(self).__name__.lower(), standing(self.history(), self.folder.driver() is not None)
        return f"<{kind} {self.name} in {self.folder.storage}: {said}>"


class Study(Sweep):
    """An ablation study that has begun: a sweep over its arms, and what the data support."""

    @property
    def results(self) -> dict[str, Any]:
        """Differences of the arms, with intervals and corrected p values, as of `raykd ablate --json`."""
        from raykd.ablation.conclusions import conclude
        from raykd.ablation.tables import data
        from raykd.records.recorded_spec import study_of

        history = self.history()
        return data(conclude(study_of(history), history))


def opened(folder: SweepFolder) -> Sweep:
    """The sweep in a folder, as a `Study` if it is one."""
    sweep = Sweep(folder)
    return Study(folder) if sweep.history().study else sweep


def open(name: str | Path, storage: str | Path | Storage | None = None) -> Sweep:
    """A sweep or a study that has begun, by its name in a storage or by its folder's path.

    The storage is a folder or a URI (`s3://bucket/sweeps`), by default RAYKD_STORAGE or `sweeps`. It may be
    running in another process or thread. Raises `UserError` with the nearest name where there is none.
    """
    with manners():
        return opened(find(name, storage))


def find(name: str | Path, storage: str | Path | Storage | None) -> SweepFolder:
    """The folder of the sweep that `open` is given. Raises `UserError` with the nearest name."""
    given = str(name)
    if storage is None and ("/" in given or isinstance(name, Path)):
        above, _, given = given.rstrip("/").rpartition("/")
        storage = above or "."
    return views.find(storage_of(storage), given)


def compare(*names: str | Path, storage: str | Path | Storage | None = None) -> Comparison:
    """What differs between sweeps, how good each was after how much compute, and which is ahead.

    `names` are those of `open`, of sweeps in one storage or of folders anywhere. Where scores do not compare,
    `incomparable` names the fields and there are no tables of scores. Raises `UserError` for fewer than two.
    """
    from raykd.overview.compare import compare as beside

    with manners():
        return beside([find(name, storage) for name in names])
