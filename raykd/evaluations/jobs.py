"""The jobs of an evaluation: each task of each suite, on each network, with each seed of the suite."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from raykd.evaluations.networks import Network
from raykd.records.evaluations import Key, key_of, results, suite_hash
from raykd.records.format import Record
from trainables.spec.suite import SuiteSpec, SuiteTask
from trainables.spec.trial import digest

FOLDER = "evaluations"  # of the files of evaluations, in the sweep's folder


@dataclass(frozen=True)
class Job:
    """One task on one network with one seed."""

    network: Network
    suite: str
    suite_hash: str
    name: str  # of the task
    task: SuiteTask
    at: int  # the seed
    place: int = 0  # of the task among those of its suite

    @property
    def key(self) -> Key:
        """What is never run twice."""
        return Key(self.network.name, self.task.key(self.network.trial.data), self.at)

    @property
    def split(self) -> str:
        """The name of the test split that it reads."""
        return self.task.split(self.network.trial.data)

    @property
    def id(self) -> str:
        """Its name among the tasks of lanes."""
        return "-".join(("evaluate", *map(str, self.key)))

    @property
    def folder(self) -> str:
        """Where its files go, relative to the sweep's folder."""
        network, task, at = self.key
        return f"{FOLDER}/{network}/{task}-{at}"

    @property
    def asked(self) -> dict[str, Any]:
        """The task as plain JSON types."""
        return self.task.model_dump(mode="json")

    def record(self, metrics: dict[str, float], reason: str | None = None) -> dict[str, Any]:
        """The fields of its `evaluated` record."""
        network, (name, key, at) = self.network, self.key
        return {
            "who": network.who, "network": name, "trial": network.signature, "row": network.row,
            "seed": network.seed, "suite": self.suite, "suite_hash": self.suite_hash, "task": self.name,
            "key": key, "asked": self.asked, "split": self.split, "suite_seed": at,
            "place": self.place, "metrics": metrics,
            "folder": self.folder, "reason": reason,
        }  # fmt: skip


@dataclass(frozen=True)
class Jobs:
    """What is to be run; and what is known already, but is not what tables show.

    That is a result by another name of the suite or the task, in another row, or of settings that a task had
    before its present ones. It is recorded once more, as read by the suite that has really read the split.
    """

    run: list[Job]
    renamed: list[dict[str, Any]]  # the fields of records
    known: int  # jobs whose results are there


def jobs_of(
    networks: Iterable[Network], suites: Sequence[SuiteSpec], records: Sequence[Record], again: bool
) -> Jobs:
    """The jobs of `suites` on `networks` that the records do not hold, task by task.

    `again`: those that failed are run again.
    """
    networks, good = list(networks), results(records)
    failed = {key_of(record) for record in records if record["reason"] is not None}
    rows = {  # under which a result is shown: that of its last record
        (key_of(r), r["suite"], r["task"], digest(r["asked"])): r["row"]
        for r in records
        if r["reason"] is None
    }
    shown = {(r["suite"], r["task"]): digest(r["asked"]) for r in records if r["reason"] is None}
    run: dict[Key, Job] = {}
    renamed, known = list[dict[str, Any]](), 0
    for suite in suites:
        content = suite_hash(
            {name: task.model_dump(mode="json") for name, task in suite.tasks.items()}, list(suite.seeds)
        )
        for place, (name, task) in enumerate(suite.tasks.items()):
            for at in suite.seeds:
                for network in networks:
                    job = Job(network, suite.name, content, name, task, at, place)
                    record = good.get(job.key)
                    if record is None:
                        if again or job.key not in failed:
                            run.setdefault(job.key, job)
                        continue
                    known += 1
                    asked = digest(job.asked)
                    row = rows.get((job.key, suite.name, name, asked))
                    if row != network.row or shown[suite.name, name] != asked:
                        kept = {field: record[field] for field in ("suite_hash", "folder")}
                        renamed.append({**job.record(record["metrics"]), **kept})
    return Jobs(list(run.values()), renamed, known)
