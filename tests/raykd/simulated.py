"""A sweep without Ray: the real proposer, judge and ledger, and curves that follow from names."""

from __future__ import annotations

import random
from pathlib import Path

from raykd.history import ENDED, History
from raykd.judge import Judge, TuneJudge
from raykd.ledger import LEDGER, Ledger
from raykd.proposer import Proposal, Proposer, Repeat
from raykd.recorder import Recorder
from raykd.rounds import Rounds
from raykd.spec import SweepSpec


class Deaf:
    """In place of the mailbox: nobody listens."""

    def __getattr__(self, name: str) -> Deaf:
        return self

    def remote(self, *_: object) -> None: ...


def score(trial: str, epoch: int) -> float:
    """Of an epoch of a trial, the same whenever it is trained."""
    return random.Random(f"{trial} {epoch}").gauss(70 + epoch, 10)


def drive(folder: Path, spec: SweepSpec, *, extend: int = 0, lanes: int = 2) -> History:
    """Run the sweep in `folder` to its end, a new one or one that is there."""
    ledger = Ledger.open(folder) if (folder / LEDGER).exists() else Ledger.create(folder)
    with ledger:
        record = Recorder(ledger, History.of(ledger.records))
        history = record.history
        for _ in range(0 if history.sweep else 2):
            about = {"spec": spec.model_dump(mode="json"), "spec_hash": spec.hash(), "source": None}
            record("sweep", **about, sampler={}, scheduler={}, versions={})
        if extend:
            record("extend", samples=extend)
        proposer = (Rounds if spec.study else Proposer)(spec, samples=history.samples)
        proposer.replay(history)
        judge = TuneJudge(Judge(spec.scheduler, spec.epochs), record, proposer, Deaf(), spec.epochs)
        judge.catch_up()
        waiting = [t.trial for t in history.trials.values() if t.status not in ENDED]
        live: dict[str, int] = {}  # trial -> its last epoch here
        while True:
            while len(live) < lanes and (name := waiting.pop(0) if waiting else _next(proposer, record)):
                record(
                    "start", trial=name, attempt=history.trials[name].attempts + 1, lane=f"lane-{len(live)}"
                )
                live[name] = 0
            if not live:
                return history
            for name in list(live):
                live[name] += 1
                epoch = live[name]
                if not judge.hear(name, epoch, {"score": score(name, epoch), "loss/total": 1 / epoch}):
                    del live[name]


def _next(proposer: Proposer | Rounds, record: Recorder) -> str | None:
    while True:
        found = proposer.propose()
        if isinstance(found, Proposal):
            record("suggest", **found.record())
            return found.trial
        if not isinstance(found, Repeat):
            return None
        record("repeat", **found.record())
