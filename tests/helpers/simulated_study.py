"""A simulated study, without a cluster: the engine's own proposer, history and conclusions; modelled scores.

    history = SimulatedStudy(spec, lambda arm, seed: 80 + random.gauss(0, 1)).run()
    results = conclude(spec, history)

Trials end in any order, several at once, and may fail. Everything goes through records as the ledger holds
them. So what is concluded here is what would be concluded of a real study with these scores. Tests and
benchmarks use it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from random import Random
from typing import Any, TypeVar

from pydantic import PrivateAttr

from raykd.ablation.rounds import Rounds
from raykd.records.history import History
from raykd.records.ledger import Record, decode, encode
from raykd.searching.proposer import Proposal
from raykd.spec.arms import ARM
from raykd.spec.study import StudySpec
from trainables.spec.trial import TrialSpec

T = TypeVar("T")
Score = Callable[[str, int], float | None]  # (arm, seed) -> points; None: the trial fails


class CachedStudy(StudySpec):
    """A study that is simulated many times: each of its trials is resolved once."""

    _known: dict[Any, Any] = PrivateAttr(default_factory=dict)

    @classmethod
    def of(cls, spec: StudySpec) -> CachedStudy:
        """The same study, with an empty cache."""
        return cls.model_validate(spec.model_dump())

    def trial(self, params: Mapping[str, Any], seed: int) -> TrialSpec:
        """As of `StudySpec`, from the cache where it is there."""
        return self.once("trial", params[ARM], seed, lambda: super(CachedStudy, self).trial(params, seed))

    def once(self, what: str, arm: str, seed: int, make: Callable[[], T]) -> T:
        """What `make` returned the first time that this was asked for."""
        key = (what, arm, seed)
        if key not in self._known:
            self._known[key] = make()
        found: T = self._known[key]
        return found


class CachedRounds(Rounds):
    """The proposer of a simulated study; it makes each proposal of a `CachedStudy` once."""

    def make(self, label: str, seed: int) -> Proposal:
        """An arm's trial of this seed, but for its number."""
        if not isinstance(self.spec, CachedStudy):
            return super().make(label, seed)
        return self.spec.once("proposal", label, seed, lambda: super(CachedRounds, self).make(label, seed))


class SimulatedStudy:
    """Simulates the engine over `lanes` trials at once; `order` says which of them ends next.

    With `CachedStudy.of(spec)` thousands of simulations take a tenth of the time.
    """

    def __init__(self, spec: StudySpec, score: Score, *, lanes: int = 3, order: Random | None = None) -> None:
        self.spec, self.score, self.lanes = spec, score, lanes
        self.order = order or Random(0)
        self.history = History()
        self.records: list[Record] = []
        self.live: list[Proposal] = []
        self._over = False
        self.write("sweep", spec=spec.model_dump(mode="json"))

    def run(self, rounds: Rounds | None = None) -> History:
        """The history at the study's end."""
        rounds = rounds or CachedRounds(self.spec)
        while self.step(rounds):
            pass
        return self.history

    def step(self, rounds: Rounds) -> bool:
        """One proposal or one trial's end; False when there is nothing more."""
        if not self._over and len(self.live) < self.lanes:
            found = rounds.propose()
            if isinstance(found, Proposal):
                self.write("suggest", **self._record(found))
                self.live.append(found)
                return True
            if found is None:
                self._over = True
                if rounds.exhausted:
                    self.write("exhausted")
            elif not self.live:
                raise RuntimeError("the study waits for trials, and none runs")
        if not self.live:
            return False
        trial = self.live.pop(self.order.randrange(len(self.live)))
        self.write("start", trial=trial.trial, attempt=1, lane="simulated")
        score = self.score(trial.params[ARM], trial.replicate)
        if score is not None:
            rounds.report(trial.trial, 1, score)
            self.write("report", trial=trial.trial, epoch=1, metrics={"score": score})
        status = "failed" if score is None else "finished"
        rounds.end(trial.trial, status)
        self.write("end", trial=trial.trial, status=status, reason=None)
        return True

    def extend(self, replicates: int) -> Rounds:
        """So many more replicates of every arm; the proposer that goes on, rebuilt as on resume."""
        self._over = False
        self.write("extend", samples=replicates * len(self.spec.arms))
        rounds = CachedRounds(self.spec, samples=self.history.samples)
        rounds.replay(self.history)
        return rounds

    def _record(self, found: Proposal) -> Record:
        if not isinstance(self.spec, CachedStudy):
            return found.record()
        return self.spec.once("record", found.params[ARM], found.replicate, found.record) | {
            "number": found.number
        }

    def write(self, kind: str, **fields: Any) -> None:
        """Add a record to the history, as it would come back from the disk."""
        record = decode(encode({"kind": kind, "time": float(len(self.records)), **fields}))
        self.records.append(record)
        self.history.add(record)
