"""A sweep without Ray: the real proposer, decider and ledger, and curves that follow from names."""

from __future__ import annotations

import random
from pathlib import Path

from raykd.records.earlier import Earlier
from raykd.records.history import ENDED, History
from raykd.records.ledger import TRIALS, Ledger
from raykd.records.recorder import Recorder
from raykd.runs.kinds import run_of
from raykd.searching.decisions import Decider, TuneDecider
from raykd.searching.proposer import Proposal, Proposes, Repeat
from raykd.spec.sweep import SweepSpec
from raykd.storage.base import SweepFolder
from raykd.storage.open_storage import open_sweep
from trainables.core.files import cache_folder
from trainables.training.loop import prepare, train
from trainables.training.workspace import Workspace


class Deaf:
    """In place of the broker: nobody listens."""

    def __getattr__(self, name: str) -> Deaf:
        return self

    def remote(self, *_: object) -> None: ...


def score(trial: str, epoch: int) -> float:
    """Of an epoch of a trial, the same whenever it is trained."""
    return random.Random(f"{trial} {epoch}").gauss(70 + epoch, 10)


class Engine:
    """One driver's part in a sweep, up to where trials run: what `raykd.runs.sweep` does before Tune."""

    def __init__(self, ledger: Ledger, spec: SweepSpec, earlier: Earlier | None = None) -> None:
        self.record = Recorder(ledger, History.of(ledger.records))
        self.history = self.record.history
        for _ in range(0 if self.history.sweep else 2):
            about = {"spec": spec.model_dump(mode="json"), "spec_hash": spec.hash(), "source": None}
            self.record("sweep", **about, sampler={}, scheduler={}, versions={})
        for _ in range(0 if earlier is None or self.history.earlier else 2):
            self.record("warm_start", **earlier.record())
        self.spec = spec
        self._proposer: Proposes | None = None

    def begin(self) -> TuneDecider:
        """Bring sampler and scheduler to where the ledger says they are."""
        proposer = run_of(self.spec).proposer(self.history)
        decider = Decider.of(self.spec)
        tune_decider = TuneDecider(decider, self.record, proposer, Deaf(), self.spec.epochs)
        tune_decider.catch_up()
        self._proposer = proposer
        self._waiting = [t.trial for t in self.history.trials.values() if t.status not in ENDED]
        return tune_decider

    def next_trial(self, lane: str) -> str | None:
        """The next trial, started on a lane; None when there is none."""
        name = self._waiting.pop(0) if self._waiting else self._proposed()
        if name is not None:
            self.record("start", trial=name, attempt=self.history.trials[name].attempts + 1, lane=lane)
        return name

    def _proposed(self) -> str | None:
        assert self._proposer is not None
        while isinstance(found := self._proposer.propose(), Repeat):
            self.record("repeat", **found.record())
        if not isinstance(found, Proposal):
            return None
        self.record("suggest", **found.record())
        return found.trial


def drive(place: SweepFolder | Path, spec: SweepSpec, *, extend: int = 0, lanes: int = 2) -> History:
    """Run a sweep to its end, a new one or one that is there."""
    sweep = open_sweep(place)
    with Ledger.open(sweep) if sweep.has_ledger() else Ledger.create(sweep) as ledger:
        engine = Engine(ledger, spec, None if ledger.records else run_of(spec).earlier(sweep))
        if extend:
            engine.record("extend", samples=extend)
        decider = engine.begin()
        live: dict[str, int] = {}  # trial -> its last epoch here
        while True:
            while len(live) < lanes and (name := engine.next_trial(f"lane-{len(live)}")):
                live[name] = 0
            if not live:
                return engine.history
            for name in list(live):
                live[name] += 1
                epoch = live[name]
                if not decider.hear(name, epoch, {"score": score(name, epoch), "loss/total": 1 / epoch}):
                    del live[name]


def train_all(place: SweepFolder | Path, spec: SweepSpec) -> History:
    """The same with real trials, one after the other."""
    sweep = open_sweep(place)
    storage = sweep.storage
    with Ledger.create(sweep) as ledger:
        engine = Engine(ledger, spec)
        decider = engine.begin()
        while name := engine.next_trial("lane-0"):
            trial = spec.trial(engine.history.trials[name].params, spec.seeds[0])
            at = Workspace(sweep.path / TRIALS / name, cache_folder(), storage.teachers(), storage)
            prepare(trial, at)
            train(trial, lambda said, name=name: decider.hear(name, said.epoch, dict(said.metrics)), at)
        return engine.history
