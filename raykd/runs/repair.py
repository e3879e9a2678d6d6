"""Repairs a ledger that is damaged in the middle, so that a driver can go on: `raykd resume NAME --repair`.

The content of a damaged line is not guessed. The good lines show which record is missing:

- the head, and what is known of earlier sweeps: the file holds each twice;
- a proposal: the sampler is rebuilt from the records before it and proposes again. The proposal is the same
  one if later records name its trial. A trial whose proposal does not come back is left out;
- a report: its trial is trained again from the first missing epoch, and its later records are left out.
  Verdicts on other trials stay;
- an evaluation: it is run again, as are those of trials that are trained again, and of the no-teacher
  baseline where its reference is lost;
- a verdict, an end, a start or a reference: the next driver makes it again, as after a crash;
- a `retry`: it is made again where a trial goes on after it had failed. Without it a history would not count
  what follows. Trials that had not started again stay failed: nothing shows that they were to be tried again;
- a request for more samples: one is added for as many configurations as were proposed.

A trial that has ended and whose student's file is damaged is trained again.

The damaged file is kept as `ledger.damaged-TIME`, and a `repair` record lists what was done.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from raykd.records.format import checked
from raykd.records.history import ENDED_WELL, History
from raykd.records.ledger import TRIALS, Record, as_line, decode, encode, keep_aside, parse_lines
from raykd.records.recorded_spec import check_settings, spec_of
from raykd.runs.kinds import run_of
from raykd.spec.search import SearchSpec
from raykd.spec.sweep import SweepSpec
from raykd.storage.base import SweepFolder
from trainables.core.errors import UserError

_OF_TRIAL = ("start", "report", "verdict", "end")


@dataclass
class Repair:
    """What was done: the fields of the ledger's `repair` record."""

    lines: list[int]  # those that were damaged, from 1
    remade: list[str] = field(default_factory=list)  # trials whose proposal was made again
    again: list[str] = field(default_factory=list)  # trials that are trained again from a missing epoch
    aside: list[str] = field(default_factory=list)  # trials left out: nobody knows their settings
    students: list[str] = field(default_factory=list)  # trials trained again for their student
    retried: list[str] = field(default_factory=list)  # trials that went on after they had failed

    @property
    def needed(self) -> bool:
        """Was anything wrong?"""
        return any(asdict(self).values())

    def describe(self, kept: Path) -> str:
        """One sentence for the user."""
        few = ", ".join(map(str, self.lines[:5])) + (" ..." if len(self.lines) > 5 else "")
        several = len(self.lines) > 1
        parts = [f"line{'s' * several} {few} of the ledger {'were' if several else 'was'} damaged"]
        missing = self.again or self.remade or self.aside or self.retried
        if not self.lines:
            parts = ["records were missing in the ledger"] if missing else []
        for trials, what in (
            (self.remade, "proposed again"),
            (self.again, "trained again from the epoch that was lost"),
            (self.aside, "left out, since their settings were lost"),
            (self.students, "trained again, since the student's file was damaged"),
            (self.retried, "taken up again after they had failed, as their later records show"),
        ):
            if trials:
                parts.append(f"{what}: {', '.join(trials)}")
        return "; ".join(parts) + f". The ledger as it was is kept as {kept.name}"


def repair(sweep: SweepFolder) -> str | None:
    """Repair the ledger in `folder`. Returns what was done, in words; None if the ledger is whole.

    Raises `UserError` where a driver holds the ledger, and where too much is lost.
    """
    lock = sweep.take_lease()
    try:
        data, driver = sweep.read_ledger()
        if data is None:
            raise UserError("name", f"there is no ledger in {sweep}")
        lines = list(checked(list(parse_lines(data))))
        while lines and lines[-1] is None:  # a torn tail needs no repair: `Ledger.open` cuts it
            lines.pop()
        done = Repair([number for number, record in enumerate(lines, start=1) if record is None])
        records = mended(lines, done)
        records = _without_students(records, sweep, done)
        records = _without_evaluations(records, done)
        if not done.needed:
            return None
        kept = keep_aside(sweep.path, "damaged", data)
        records.append(_record("repair", time.time(), **asdict(done)))
        sweep.replace_ledger(driver, [as_line(encode(record)) for record in records])
    finally:
        lock.close()
    return done.describe(kept)


def mended(lines: Sequence[Record | None], done: Repair) -> list[Record]:
    """The records of a whole ledger, from the `lines` of a damaged one (None: a damaged line).

    Adds to `done` what was made again or left out. Raises `UserError` where both heads are lost.
    """
    heads = [record for record in lines if record is not None and record["kind"] == "sweep"]
    if not heads:
        raise UserError(
            "ledger",
            "the record of what is searched is lost, and all others mean nothing without it",
            expected="the file from a backup, or a new sweep under another name",
        )
    spec = spec_of(History.of(heads[:1]))
    proposals = [record for record in lines if record is not None and _proposes(record)]
    check_settings(spec, History.of([heads[0], *proposals]))
    earlier = [record for record in lines if record is not None and record["kind"] == "warm_start"]
    if isinstance(spec, SearchSpec) and spec.warm_start and proposals and not earlier:
        raise UserError(
            "ledger",
            "the record of what the sampler was told of earlier sweeps is lost, and its proposals rest on it",
            expected="the file from a backup, or a new sweep under another name",
        )
    head = [*_twice(heads), *_twice(earlier)]
    rest = [record for record in lines if record is None or record["kind"] not in ("sweep", "warm_start")]
    # First: proposals depend on what the trials before them came to.
    rest = _with_retries(rest, done)
    proposed = _with_proposals(spec, head, rest, done)
    return _without_gaps(proposed, done)


def _twice(records: list[Record]) -> list[Record]:
    """A record that the file holds twice, of which one may be damaged; [] where there is none."""
    return [*records, *records][:2]


def _with_retries(lines: Sequence[Record | None], done: Repair) -> list[Record | None]:
    """The lines with a `retry` before each record with which a trial goes on after it failed.

    A driver writes such a record only after a `retry`, so that one is lost.
    """
    found: list[Record | None] = []
    ends: dict[str, str] = {}  # trial -> status
    for line in lines:
        if line is not None and line["kind"] == "retry":
            for name in line["trials"]:
                if ends.get(name) == "failed":
                    del ends[name]
        elif line is not None and line["kind"] in _OF_TRIAL:
            name = line["trial"]
            if ends.get(name) == "failed":
                found.append(_record("retry", line["time"], trials=[name]))
                done.retried.append(name)
                del ends[name]
            if line["kind"] == "end":
                ends.setdefault(name, line["status"])  # the first end counts, as in a history
        found.append(line)
    return found


def _with_proposals(
    spec: SweepSpec, head: list[Record], lines: Sequence[Record | None], done: Repair
) -> list[Record]:
    """Records in which every number is proposed once, in order, and every trial has a proposal."""
    records = list(head)
    ahead = deque(line["number"] for line in lines if line and _proposes(line))
    names = {line["trial"] for line in lines if line and line["kind"] == "suggest"}
    lost = {line["trial"] for line in lines if line and line["kind"] in _OF_TRIAL} - names
    number = 0  # the next one
    for line in lines:
        if line is None:
            gap = ahead[0] - number if ahead else len(lost)
            again = _propose(spec, records) if gap else []
            if again and again[-1]["trial"] in lost:  # then the damaged line was this proposal
                records += again
                number += 1
                _remade(again[-1], lost, done)
        elif line["kind"] not in _OF_TRIAL or line["trial"] not in lost:
            if _proposes(line):
                while number < line["number"]:
                    again = _propose(spec, records)
                    if not again or again[-1]["trial"] in names:
                        again = [_untold(number, records)]
                    records += again
                    number += 1
                    _remade(again[-1], lost, done)
                ahead.popleft()
                number += 1
            records.append(line)
    done.aside += sorted(lost)
    return _extended(spec, records)


def _remade(proposal: Record, lost: set[str], done: Repair) -> None:
    if proposal["kind"] == "suggest":
        lost.discard(proposal["trial"])
        done.remade.append(proposal["trial"])


def _propose(spec: SweepSpec, records: list[Record]) -> list[Record]:
    """The record of the sampler's next proposal after `records`, with an extension before it if they allow
    no more; [] if the sampler proposes nothing."""
    from raykd.searching.proposer import Proposal, Repeat

    more: list[Record] = []
    for _ in range(2):
        history = History.of([*records, *more])
        found = run_of(spec).proposer(history).propose()
        if isinstance(found, Proposal | Repeat):
            kind = "suggest" if isinstance(found, Proposal) else "repeat"
            return [*more, _record(kind, records[-1]["time"], **found.record())]
        if found is not None:
            break
        more = [_more(spec, records)]
    return []


def _untold(number: int, records: list[Record]) -> Record:
    """A record in the place of a proposal that is lost for good: a repeat that trained nothing."""
    fields: Record = {"params": {}, "trial": None, "reason": "its record was damaged", "attrs": {}}
    return _record("repeat", records[-1]["time"], number=number, **fields)


def _extended(spec: SweepSpec, records: list[Record]) -> list[Record]:
    """The records with the requests for more samples that so many proposals need."""
    found: list[Record] = []
    samples, made = spec.samples, 0
    for record in records:
        if record["kind"] == "suggest" and record["origin"] != "replicate":
            if made >= samples:
                found.append(_more(spec, found))
                samples += found[-1]["samples"]
            made += 1
        elif record["kind"] == "extend":
            samples += record["samples"]
        found.append(record)
    return found


def _more(spec: SweepSpec, records: list[Record]) -> Record:
    return _record("extend", records[-1]["time"], samples=spec.samples_per_extension)


def _without_gaps(records: list[Record], done: Repair) -> list[Record]:
    """The records without those of a trial that come after its first missing epoch."""
    history = History.of(records)
    whole: dict[str, int] = {}  # trial -> its last epoch before a missing one
    for name, trial in history.trials.items():
        last = next(epoch for epoch in range(len(trial.reports) + 1) if epoch + 1 not in trial.reports)
        known = max((*trial.reports, *trial.verdicts), default=0)
        verdict = trial.verdicts.get(last)
        short = {"finished": last < (trial.epochs or 0), "stopped": verdict == "go"}.get(trial.status, False)
        if known > last or short:
            whole[name] = last
            done.again.append(name)
        elif trial.status == "stopped" and verdict is None:
            whole[name] = last  # the scheduler decides again, and it ends again

    def kept(record: Record) -> bool:
        last = whole.get(record.get("trial") or "")
        if last is None or record["kind"] not in ("report", "verdict", "end"):
            return True
        return record["kind"] != "end" and int(record["epoch"]) <= last

    return [record for record in records if kept(record)]


def _without_students(records: list[Record], sweep: SweepFolder, done: Repair) -> list[Record]:
    """The records without end and last epoch of the ended trials whose student's file is damaged.

    These trials thereby become unfinished, and a lane that finds the damaged file trains from the beginning.
    A file that is missing was removed on purpose, and its trial stays ended.
    """
    from trainables.core.checksums import is_whole
    from trainables.training.run import BEST

    last: dict[str, int] = {}
    for name, trial in History.of(records).trials.items():
        file = sweep.path / TRIALS / name / BEST
        if trial.status in ENDED_WELL and sweep.storage.pull(file) and not is_whole(file):
            last[name] = trial.epoch
    done.students += sorted(last)

    def over(record: Record) -> bool:
        name, kind = record.get("trial") or "", record["kind"]
        return name in last and (
            kind == "end" or (kind in ("report", "verdict") and record["epoch"] == last[name])
        )

    return [record for record in records if not over(record)]


def _without_evaluations(records: list[Record], done: Repair) -> list[Record]:
    """The records without evaluations of students that are trained again: these are other students then."""
    again = {*done.again, *done.students}
    baseline = "baseline" in History.of(records).references  # else the next driver trains it again

    def kept(record: Record) -> bool:
        return record.get("trial") not in again and (baseline or record["who"] != "baseline")

    return [record for record in records if record["kind"] != "evaluated" or kept(record)]


def _proposes(record: Record) -> bool:
    return record["kind"] in ("suggest", "repeat")


def _record(kind: str, time: float, **fields: Any) -> Record:
    """A record as `Ledger.append` returns it."""
    record: Record = decode(encode({"kind": kind, "time": time, **fields}))
    return record
