"""What pages of sweeps and of studies share: the head, failures, compute spent, files."""

from __future__ import annotations

import json
import math
import os
import shlex
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any
from urllib.parse import quote

from raykd.console.sizes import HEADINGS, in_words, shown_sizes, size_cells
from raykd.console.wording import duration, headings, number, probes, ranked
from raykd.records.history import ENDED_WELL, History, TrialRecord
from raykd.records.ledger import LEDGER
from raykd.report.elements import Bullets, Code, Collapsible, Facts, Links, Section, Table, Text
from raykd.spec.document import write_yaml
from raykd.spec.schedulers import settings_in_use
from raykd.storage.base import Storage
from raykd.storage.commands import storage_words
from trainables.spec.trial import ProbeSpec

MOST_ROWS = 1000  # of the table of all trials


def facts(history: History, own: Sequence[tuple[str, str]] = ()) -> Facts:
    """The head of the page: what was run, with which versions, and when."""
    spec, head = history.spec, history.sweep or {}
    rows = [
        ("Method", ", ".join(methods(spec))),
        ("Student", _student(history)),
        ("Teacher", _teachers(spec)),
        ("Data", _named(spec.get("data", {}))),
        ("Score", f"{score_name(spec)}, validation split; ± is the standard error over the probe's draws"),
        ("Epochs of a whole trial", str(spec.get("epochs", ""))),
        *own,
        ("When", _when(history)),
        ("Versions", ", ".join(f"{name} {version}" for name, version in head.get("versions", {}).items())),
        ("Spec hash", str(head.get("spec_hash", ""))),
    ]
    return Facts([(term, said or "none") for term, said in rows])


def searched(history: History) -> list[tuple[str, str]]:
    """The rows of `facts` that only a search has: its seeds, its sampler, its scheduler."""
    scheduler, sampler = history.spec.get("scheduler", {}), (history.sweep or {}).get("sampler", {})
    return [
        ("Seeds", ", ".join(map(str, history.spec.get("seeds", ())))),
        ("Sampler", str(sampler.get("name", ""))),
        ("Scheduler", _named(settings_in_use(scheduler))),
    ]


def again(history: History, storage: Storage, verb: str) -> Section:
    """The command that runs the sweep again, by `verb`, and the recorded spec."""
    source = (history.sweep or {}).get("source")
    spec = Code(write_yaml(_plain(history.spec)))
    parts: list[Any] = [Text("It was started from Python, without a file; its spec is below.")]
    if source is not None:
        words = ["raykd", verb, source["path"]]
        words += [word for override in source["overrides"] for word in ("--set", override)]
        there = Text("Under another name, or in another storage: `--set name=OTHER`.")
        parts = [Code(shlex.join([*words, *storage_words(storage)])), there]
    return Section("Run it again", [*parts, Collapsible("The spec, complete", [spec])])


def failures(history: History, column: str, name: Callable[[TrialRecord], str]) -> Section:
    """Every failed trial with its reason, and proposals that could not be trained.

    `name` says what a trial is, in the column of that title.
    """
    failed = [t for t in history.trials.values() if t.status == "failed"]
    rows = [
        [t.trial, name(t), str(t.replicate), str(t.epoch), str(t.attempts), str(t.reason or "not said")]
        for t in failed
    ]
    caption = f"{len(failed)} of {len(history.trials)} trials failed"
    table = Table(caption, ["trial", column, "seed", "epoch", "attempts", "reason"], rows)
    parts: list[Any] = [table if failed else Text("No trial failed.")]
    refused = [
        f"{r['reason']} ({_settings(r['params'])})"
        for r in history.repeats
        if r.get("trial") is None and not r.get("over")
    ]
    if refused:
        parts += [Text("Proposals that cannot be trained, which cost nothing:"), Bullets(refused)]
    return Section("Failures", parts)


def compute(
    history: History, column: str, group: Callable[[TrialRecord], str], order: Sequence[str] = ()
) -> Section:
    """Seconds and epochs spent, by arm of a study, by method, or by status."""
    trials = list(history.trials.values())
    groups: dict[str, list[TrialRecord]] = {name: [] for name in order}
    for trial in trials:
        groups.setdefault(group(trial), []).append(trial)
    rows = [_cost(name, of) for name, of in groups.items() if of]
    rows.append(_cost("all", trials))
    columns = [column, "trials", "epochs trained", "time in lanes", "seconds a trial"]
    parts: list[Any] = [Table("Compute spent", columns, rows, frozenset({len(rows) - 1}))]
    said = [f"From the first record to the last one: {duration(_span(history))}, pauses included."]
    saved = sum(max(0, (t.epochs or t.epoch) - t.epoch) for t in trials if t.status == "stopped")
    if saved:
        asked = sum(t.epochs or t.epoch for t in trials if t.status in ENDED_WELL)
        said.append(f"Stopping early saved {saved} of {asked} epochs ({saved / asked:.0%}).")
    audited = sum(t.epoch - t.audited for t in trials if t.audited is not None)
    said += [f"The audit of the proxy took {audited} epochs of trials that were to stop."] if audited else []
    again = sum(max(0, t.attempts - 1) for t in trials)
    said += [f"Further attempts after a fault: {again}."] if again else []
    drivers = sum(r["event"] == "start" for r in history.drivers)
    said += [f"It was driven in {drivers} sessions."] if drivers > 1 else []
    if history.lane_s:
        held = "with the teacher's training, references and waiting; the budget counts it"
        said.append(f"Its lanes were there for {duration(history.lane_s)} in all, {held}.")
    said.append("Time in lanes counts trials only: not the teacher's training, nor the references.")
    return Section("Compute spent", [*parts, Bullets(said, "quiet")])


def links(history: History, folder: Path, out: Path, own: Sequence[tuple[str, str]] = ()) -> Section:
    """Links to the files of the sweep that exist, relative to the page `out`."""
    best, journal = history.best(), shlex.quote(str(folder / "optuna.journal"))
    wanted = [
        (LEDGER, "every suggestion, report, verdict and end: the one truth"),
        ("trials.parquet", "one row a trial"),
        ("curves.parquet", "one row an epoch, one column a metric"),
        ("evaluations.parquet", "one row a network, task and seed"),
        *own,
        ("tensorboard", f"tensorboard --logdir {shlex.quote(str(folder / 'tensorboard'))}"),
        ("optuna.journal", f"optuna-dashboard {journal}, from raykd[dashboard]"),
        ("log.txt", "everything Ray and raykd logged"),
    ]
    if best is not None:
        wanted.append((f"trials/{best.trial}/best.safetensors", "the best trial's student"))
    rows = [(name, _address(folder / name, out), said) for name, said in wanted if (folder / name).exists()]
    text = "Links work where this page lies beside the sweep; in a copy of the page alone they lead nowhere."
    return Section("Files", [Links(rows), Text(text, "quiet")])


def trials_table(history: History, caption: str) -> Table:
    """The trials, best first. Axes that not every trial has share one column."""
    trials = ranked(history)
    names = list(dict.fromkeys(name for t, *_ in trials for name in t.params))
    axes = [name for name in names if all(name in t.params for t, *_ in trials)]
    more = ["further settings"] if len(axes) < len(names) else []
    seeds = len({t.replicate for t, *_ in trials}) > 1
    columns = ["trial", "status", "epoch", "score", "± se", *(["seed"] if seeds else []), "seconds"]
    sizes = shown_sizes(history)
    columns += [*(HEADINGS[name] for name in sizes), *axes, *more]
    rows = []
    for trial, score, se in trials[:MOST_ROWS]:
        row = [trial.trial, trial.status, str(trial.epoch), number(score), number(se)]
        row += [str(trial.replicate)] if seeds else []
        row += [f"{trial.wall_s:.0f}", *size_cells(trial.size, sizes)]
        row += [*(number(trial.params[axis]) for axis in axes)]
        rest = (f"{name} {number(value)}" for name, value in trial.params.items() if name not in axes)
        rows.append([*row, *([", ".join(rest)] if more else [])])
    if len(trials) > MOST_ROWS:
        caption += f"; the best {MOST_ROWS} of {len(trials)}, all are in trials.parquet"
    return Table(caption, columns, rows)


def references(history: History) -> Table | None:
    """The table of the references, best first; None where none was measured."""
    found = sorted(history.references.values(), key=lambda r: -r["metrics"].get("score", -math.inf))
    metrics = probes([record["metrics"] for record in found])
    rows = [[r["label"], *(number(r["metrics"].get(k, "")) for k in metrics)] for r in found]
    return Table("References, on the same validation split", ["", *headings(metrics)], rows) if rows else None


def methods(spec: Mapping[str, Any]) -> list[str]:
    """The methods of a recorded spec."""
    found = spec.get("method", "")
    return [found] if isinstance(found, str) else [str(method) for method in found]


def score_name(spec: Mapping[str, Any]) -> str:
    """The probe that gives a recorded spec's score."""
    return str(spec.get("probe", {}).get("score", ProbeSpec.model_fields["score"].default))


def moment(time: float) -> str:
    """Unix seconds as `2026-11-21 14:05 UTC`."""
    return datetime.fromtimestamp(time, timezone.utc).strftime("%Y-%m-%d %H:%M UTC")


def _cost(name: str, trials: Sequence[TrialRecord]) -> list[str]:
    seconds = sum(t.wall_s for t in trials)
    each = f"{seconds / len(trials):.1f}" if trials else ""
    return [name, str(len(trials)), str(sum(t.epoch for t in trials)), duration(seconds), each]


def _times(history: History) -> list[float]:
    times = [record["time"] for record in (history.sweep, *history.drivers) if record is not None]
    return times + [t for trial in history.trials.values() for t in (*trial.times.values(), trial.ended) if t]


def _span(history: History) -> float:
    times = _times(history)
    return max(times) - min(times) if times else 0.0


def _when(history: History) -> str:
    times = _times(history)
    if not times:
        return ""
    began, ended = moment(min(times)), moment(max(times))
    same = began[:10] == ended[:10]  # the day
    return f"{began.removesuffix(' UTC')} to {ended[11:] if same else ended}"


def _network(model: Mapping[str, Any] | None) -> str:
    if not model:
        return ""
    options = _settings(model.get("options") or {})
    return str(model.get("arch", "")) + (f" ({options})" if options else "")


def _student(history: History) -> str:
    """The student of the spec, with its size where all trials have one."""
    sizes = {tuple(trial.size.items()) for trial in history.trials.values()}
    size = in_words(dict(sizes.pop())) if len(sizes) == 1 else ""
    return ", ".join(filter(None, [_network(history.spec.get("student")), size]))


def _teachers(spec: Mapping[str, Any]) -> str:
    """All teachers of a spec, those with a name after it."""
    named: Mapping[str, Any] = spec.get("teachers") or {}
    given = spec.get("teacher")
    own = [one for one in (given if isinstance(given, list) else [given]) if isinstance(one, Mapping)]
    said = [f"{name}: {_teacher(one)}" for name, one in named.items() if isinstance(one, Mapping)]
    return "; ".join([*filter(None, map(_teacher, own)), *said]) or "none"


def _teacher(teacher: Mapping[str, Any]) -> str:
    if not teacher:
        return ""
    checkpoint, train = teacher.get("checkpoint"), teacher.get("train")
    how = f", from {Path(str(checkpoint)).name}" if checkpoint else ""
    if train:
        how = f", trained here by {train.get('method')} for {train.get('epochs')} epochs"
    return _network(teacher) + how


def _named(values: Mapping[str, Any]) -> str:
    """Settings in one line, the value of `name` first: `digits, image_size 16`."""
    rest = {name: value for name, value in values.items() if name != "name"}
    return ", ".join(filter(None, [str(values.get("name", "")), _settings(rest)]))


def _settings(values: Mapping[str, Any]) -> str:
    shown = {k: f"{v:g}" if isinstance(v, float) else str(v) for k, v in values.items() if v is not None}
    return ", ".join(f"{name} {value}" for name, value in shown.items())


def _address(path: Path, out: Path) -> str:
    """The address of the file `path` relative to the page `out`, escaped for a link."""
    return quote(os.path.relpath(path.resolve(), out.resolve().parent))


def _plain(value: Any) -> Any:
    """The value after a round trip through JSON, which turns tuples into lists for YAML."""
    return json.loads(json.dumps(value, default=str))
