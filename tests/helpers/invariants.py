"""What must hold of every sweep and study that has ended, whatever died on the way: read from its folder.

history = check(storage / "name")       # AssertionError with what does not hold
assert not processes(mark)              # none of a driver's descendants lives on
"""

from __future__ import annotations

import time
from collections import Counter
from pathlib import Path

import psutil
import pyarrow.parquet as pq

from raykd.records.history import ENDED, History, missing
from raykd.records.ledger import Ledger, Record
from raykd.records.recorded_spec import spec_of
from raykd.runs.kinds import run_of
from raykd.searching.decisions import Decider
from raykd.searching.proposer import Proposal, Repeat
from raykd.spec.sweep import SweepSpec
from raykd.storage.base import SweepFolder
from raykd.storage.open_storage import open_sweep

MARK = "RAYKD_TEST_SWEEP"  # an environment variable that a driver's descendants inherit


def check(place: SweepFolder | Path) -> History:
    """The history of a sweep that is done, once everything that must hold of it has been found to hold."""
    sweep = open_sweep(place)
    folder = sweep.path
    records = Ledger.read(sweep)
    history = History.of(records)
    spec = spec_of(history)
    assert history.done and len(history.trials) == history.total, history.counts()
    assert not missing(spec, history), "a reference was not measured"
    assert sweep.driver() is None, "somebody still holds it"
    assert not (folder / "ray").exists(), "what only Ray needed is left"
    _every_record_once(records)
    for trial in history.trials.values():
        _curve(trial.trial, records, trial.epochs or spec.epochs)
        name = spec.trial(trial.params, trial.replicate).signature()
        assert name == trial.trial, f"{trial.trial} would be called {name}"
    _verdicts(history, spec)
    _proposals(records, spec)
    rows = {row["trial"]: row for row in pq.read_table(folder / "trials.parquet").to_pylist()}
    assert {name: row["status"] for name, row in rows.items()} == {
        name: trial.status for name, trial in history.trials.items()
    }, "the table does not say what the ledger says"
    return history


def _every_record_once(records: list[Record]) -> None:
    for kind, by in (
        ("suggest", ("trial",)),
        ("end", ("trial",)),
        ("report", ("trial", "epoch")),
        ("verdict", ("trial", "epoch")),
        ("start", ("trial", "attempt")),
        ("reference", ("name",)),
    ):
        found = Counter(tuple(r[field] for field in by) for r in records if r["kind"] == kind)
        twice = [key for key, count in found.items() if count > 1]
        assert not twice, f"{kind} twice: {twice}"
    heads = [r["spec_hash"] for r in records if r["kind"] == "sweep"]  # twice, should one be damaged
    assert len(heads) <= 2 and len(set(heads)) == 1, f"heads {heads}"
    numbers = [r["number"] for r in records if r["kind"] in ("suggest", "repeat")]
    assert numbers == list(range(len(numbers))), f"numbers {numbers}"


def _curve(trial: str, records: list[Record], last: int) -> None:
    """A trial's records, in order: begun, epoch after epoch with its verdict, ended once."""
    own = [r for r in records if r.get("trial") == trial and r["kind"] != "reference"]
    assert [own[0]["kind"], own[-1]["kind"]] == ["suggest", "end"], f"{trial}: {[r['kind'] for r in own]}"
    epoch, attempt, open_, stopped = 0, 0, False, False
    for record in own[1:-1]:
        kind = record["kind"]
        assert not stopped, f"{trial}: {kind} after a stop"
        if kind == "start":
            assert record["attempt"] > attempt, f"{trial}: attempt {record['attempt']} after {attempt}"
            attempt = record["attempt"]
        elif kind == "report":
            assert attempt and not open_ and record["epoch"] == epoch + 1, (
                f"{trial}: epoch {record['epoch']} after {epoch}"
            )
            epoch, open_ = epoch + 1, True
        else:
            assert kind == "verdict" and open_ and record["epoch"] == epoch, f"{trial}: {record}"
            open_, stopped = False, record["verdict"] == "stop"
    end = own[-1]
    assert end["status"] in ENDED
    if end["status"] == "failed":
        assert end["reason"], f"{trial} failed without a reason"
    else:
        assert stopped and not open_, f"{trial} ended without a verdict"
        assert (end["status"] == "finished") == (epoch == last), f"{trial}: {end['status']} at {epoch}/{last}"


def _verdicts(history: History, spec: SweepSpec) -> None:
    """A scheduler that never died, fed the same reports in their order, says the same."""
    decider = Decider.of(spec)
    for name, epoch in history.arrivals:
        trial = history.trials[name]
        go = decider.decide(name, trial.number, epoch, trial.reports[epoch].get("score"), trial.epochs)
        found = trial.verdicts.get(epoch)
        failed = found is None and trial.status == "failed"
        assert failed or found == ("go" if go else "stop"), f"{name}, epoch {epoch}: {found}, a replay: {go}"
        assert failed or (trial.audited == epoch) == decider.audits(name, epoch), f"{name}, epoch {epoch}"


def _proposals(records: list[Record], spec: SweepSpec) -> None:
    """A sampler that is given what was known at the time proposes what was proposed."""
    for at, record in enumerate(records):
        if record["kind"] not in ("suggest", "repeat"):
            continue
        before = History.of(records[:at])
        proposed = run_of(spec).proposer(before).propose()
        assert isinstance(proposed, Proposal | Repeat), f"number {record['number']} came too early"
        said = (proposed.number, proposed.trial, proposed.params)
        assert said == (record["number"], record["trial"], record["params"]), f"{said} was to be proposed"


def processes(mark: str) -> list[psutil.Process]:
    """The live processes that descend from a driver started with `MARK=mark` in its environment."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get(MARK) == mark and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except psutil.Error:
            continue
    return found


def all_gone(mark: str, seconds: float = 30) -> None:
    """Wait until none of them is left."""
    deadline = time.monotonic() + seconds
    while left := processes(mark):
        assert time.monotonic() < deadline, f"left behind: {[(p.pid, p.cmdline()) for p in left]}"
        time.sleep(0.2)
