"""Every method on digits under one protocol: the README's table, made by one command.

    python benchmarks/methods.py                       # all methods; 44 minutes on two busy cores
    python benchmarks/methods.py retro seed --seeds 3  # some of them

1. Search. 12 configurations drawn from each method's default space, 16 epochs each, compared on the
   validation split. One sweep over all methods, drawn at random and none stopped early: each method
   gets the same.
2. Replicate. The best configuration of each is trained again from seeds that the search never saw, and each
   student is read on the test split: 5-shot and full ridge probe, logistic regression.
3. Beside them, by the same probes: raw pixels, the untrained student, the teacher, and the best no-teacher
   configuration at the compute of a RETRO trial (at equal epochs it is the row `moco`).

Everything lies in the folder `--out`; a second call goes on where the first one ended. Prints a table in
Markdown.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import statistics
from collections.abc import Iterable, Mapping, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import Any, NamedTuple

os.environ.setdefault("OMP_NUM_THREADS", "1")

from raykd.lanes.cluster import quiet

quiet()

import torch  # noqa: E402
from scipy import stats  # noqa: E402

from raykd.console.live import Console  # noqa: E402
from raykd.export.student import open_student  # noqa: E402
from raykd.records.history import History, TrialRecord  # noqa: E402
from raykd.records.ledger import Ledger  # noqa: E402
from raykd.runs import sweep as engine  # noqa: E402
from raykd.searching.proposer import Proposal, Proposer  # noqa: E402
from raykd.spec.axis import Axis  # noqa: E402
from raykd.spec.search import SearchSpec, build_sweep, load_sweep  # noqa: E402
from raykd.spec.shipped import spaces  # noqa: E402
from raykd.spec.space import METHOD  # noqa: E402
from raykd.storage.open_storage import open_sweep  # noqa: E402
from trainables.core.files import cache_folder  # noqa: E402
from trainables.data.data_sets import open_data  # noqa: E402
from trainables.data.encode import Encode  # noqa: E402
from trainables.evaluation.evaluate import Examiner, raw_pixels  # noqa: E402
from trainables.methods import methods  # noqa: E402
from trainables.networks.backbones import build_backbone  # noqa: E402
from trainables.planning.compute import equal_epochs  # noqa: E402
from trainables.spec.trial import TrialSpec  # noqa: E402
from trainables.teachers.teacher import load_teacher  # noqa: E402
from trainables.training.run import BEST, build_method  # noqa: E402
from trainables.training.teacher_file import teacher_path  # noqa: E402
from trainables.training.workspace import Workspace  # noqa: E402

EPOCHS = 16
SPACE_OF = {"retro": "quickstart"}  # whose own space is for full scale
PROBES = {"ridge_5shot": "5-shot ridge", "ridge": "ridge", "logistic": "logistic"}
NO_TEACHER, COSTLY = "moco", "retro"  # the baseline, and whose compute it is given


class Row(NamedTuple):
    """One line of the table."""

    label: str
    labels: bool  # does it learn from labels
    scores: list[dict[str, float]]  # of each replicate: probe -> percent on the test split
    parameters: int | None = None  # trained
    seconds: float | None = None  # of training a replicate, mean


class Bench:
    """The sweeps in a folder, run or gone on with."""

    def __init__(self, out: Path, samples: int, seeds: Sequence[int]) -> None:
        self.out, self.samples, self.seeds = out, samples, list(seeds)
        self.cache = cache_folder()
        self.place = Workspace(out / "unused", self.cache, out / ".teachers")

    def search(self, chosen: Sequence[str]) -> dict[str, TrialSpec]:
        """Draws from the default space of each method, trained in one sweep: the best trial of each."""
        axes: dict[str, Axis] = {}
        fixed: dict[str, Any] = {}
        points: list[list[dict[str, Any]]] = []
        for method in chosen:
            space = load_sweep(
                SPACE_OF.get(method, method),
                ["preset=digits", "sampler={name: random, seed: 0}", f"samples={self.samples}", "seeds=[0]"],
            )
            written = {**space.optim, **{f"views.{name}": value for name, value in space.views.items()}}
            fixed |= {f"{method}.{name}": value for name, value in {**written, **space.fixed}.items()}
            for name, axis in space.axes.items():
                fixed.pop(f"{method}.{name}", None)
                when = {f"{method}.{other}": values for other, values in axis.when.items()}
                axes[f"{method}.{name}"] = axis.model_copy(update={"when": when})
            drawn = (p for p in iter(Proposer(space).propose, None) if isinstance(p, Proposal))
            points.append(
                [
                    {METHOD: method, **{f"{method}.{name}": value for name, value in p.params.items()}}
                    for p in drawn
                ]
            )
        # In turn, so that a sweep that is cut short has tried as much of each.
        mixed = [point for turn in zip_longest(*points) for point in turn if point is not None]
        base = load_sweep(SPACE_OF.get(COSTLY, COSTLY)).model_dump(mode="json")
        spec = build_sweep(
            {
                "name": "search",
                "method": list(chosen),
                "preset": "digits",
                **{section: base[section] for section in ("student", "teacher", "data", "probe")},
                "epochs": EPOCHS,
                "fixed": fixed,
                "axes": axes,
                "points": mixed,
                "samples": len(mixed),
                "scheduler": {"name": "none"},
                "references": [],
            }
        )
        history = self._run(spec)
        best = {}
        for method in chosen:
            scored = [t for t in history.trials.values() if t.method == method and t.best is not None]
            if not scored:
                raise SystemExit(f"no trial of {method} has a score; see {self.out / spec.name}")
            leader = max(scored, key=lambda t: t.best or (0.0, 0))
            best[method] = spec.trial(leader.params, 1)
        return best

    def replicate(self, name: str, trials: Mapping[str, TrialSpec]) -> dict[str, Row]:
        """Each of `trials` (by method) from every seed, in one sweep; read on the test split."""
        base = next(iter(trials.values())).model_dump(mode="json")
        teachers = [t.teacher.model_dump(mode="json") for t in trials.values() if t.teacher is not None]
        shared = {key: base[key] for key in ("student", "data", "probe")}
        fixed = {
            f"{method}.{field}": value
            for method, trial in trials.items()
            for field, value in _settings(trial).items()
        }
        if len(trials) == 1:
            fixed = {field.partition(".")[2]: value for field, value in fixed.items()}
        spec = build_sweep(
            {
                "name": name,
                "method": list(trials),
                "epochs": next(iter(trials.values())).epochs,
                **shared,
                **({"teacher": teachers[0]} if teachers else {}),
                "fixed": fixed,
                "samples": len(trials),
                "seeds": self.seeds,
                "sampler": "grid" if len(trials) > 1 else "random",
                "scheduler": {"name": "none"},
                "references": [],
            }
        )
        history = self._run(spec)
        rows = {}
        for method, trial in trials.items():
            records = [r for r in history.trials.values() if r.method == method]
            rows[method] = Row(
                method,
                "labels" in methods()[method].requires(methods()[method].Config(**trial.config)),
                [self._read(trial, spec, record) for record in records],
                self._trained(trial),
                statistics.mean(r.reports[r.epoch]["train_s"] for r in records),
            )
        return rows

    def references(self, trial: TrialSpec) -> Iterable[Row]:
        """Raw pixels, the teacher, and the student as it is initialised, from every seed."""
        yield Row("raw pixels", False, [self._evaluate(trial, raw_pixels)])
        teacher = (
            load_teacher(trial.teacher, teacher_path(trial, self.place.teachers)) if trial.teacher else None
        )
        if teacher is not None:
            yield Row(
                f"the teacher, {teacher.backbone.arch}", False, [self._evaluate(trial, teacher.backbone)]
            )
        untrained = [build_backbone(trial.student, seed).eval() for seed in self.seeds]
        yield Row("the student, untrained", False, [self._evaluate(trial, student) for student in untrained])

    def _run(self, spec: SearchSpec) -> History:
        sweep = open_sweep(self.out / spec.name)
        place, console = engine.Place(sweep), Console()
        if sweep.has_ledger() and Ledger.read(sweep):
            return engine.resume(place, console, as_started=True)
        return engine.run(spec, place, console)

    def _read(self, trial: TrialSpec, spec: SearchSpec, record: TrialRecord) -> dict[str, float]:
        sweep = open_sweep(self.out / spec.name)
        student, _ = open_student(trial, sweep.path / "trials" / record.trial / BEST, sweep)
        return self._evaluate(trial, student)

    def _evaluate(self, trial: TrialSpec, encode: Encode) -> dict[str, float]:
        names = list(PROBES)
        probe = trial.probe.model_copy(update={"score": names[0], "record": tuple(names[1:])})
        data = open_data(trial.data, self.cache)
        examiner = Examiner(probe, data, trial.data.image_size, torch.device("cpu"), final=True)
        found = examiner.evaluate(encode)
        return {name: found[f"probe/{name}"] for name in names}

    def _trained(self, trial: TrialSpec) -> int:
        """Parameters that an optimizer moves: the student's, and those that training alone needs."""
        method = build_method(trial, open_data(trial.data, self.cache), self.place, torch.device("cpu"))
        return sum(p.numel() for p in method.parameters() if p.requires_grad)


def _settings(trial: TrialSpec) -> dict[str, Any]:
    """Flat name -> value of what a method brings to the protocol: its own settings, optimizer, views."""
    dump = trial.model_dump(mode="json")
    views = {f"views.{name}": value for name, value in dump["views"].items()}
    return {**dump["config"], **dump["optim"], **views}


def interval(values: Sequence[float]) -> tuple[float, float]:
    """Mean, and half the width of its 95 % t interval over replicates (NaN for one)."""
    mean = statistics.mean(values)
    if len(values) == 1:
        return mean, math.nan
    se = statistics.stdev(values) / math.sqrt(len(values))
    return mean, float(stats.t.ppf(0.975, len(values) - 1)) * se


def table(rows: Iterable[Row]) -> str:
    """Markdown, best 5-shot score first."""
    first = next(iter(PROBES))
    ordered = sorted(rows, key=lambda row: -statistics.mean(score[first] for score in row.scores))
    lines = [
        "| | learns from labels | " + " | ".join(PROBES.values()) + " | trained parameters | seconds |",
        "|---|---|" + "---|" * (len(PROBES) + 2),
    ]
    for row in ordered:
        cells = []
        for name in PROBES:
            mean, half = interval([score[name] for score in row.scores])
            cells.append(f"{mean:.1f}" if math.isnan(half) else f"{mean:.1f} ± {half:.1f}")
        cells.append("" if row.parameters is None else f"{row.parameters / 1000:.0f} k")
        cells.append("" if row.seconds is None else f"{row.seconds:.1f}")
        lines.append(f"| {row.label} | {'yes' if row.labels else ''} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def comparable(method: str) -> bool:
    """Whether a method's space has the images of the protocol; to compare patches takes larger ones."""
    own, shared = (load_sweep(SPACE_OF.get(name, name)) for name in (method, COSTLY))
    return own.data == shared.data


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    known = [name for name in methods() if SPACE_OF.get(name, name) in spaces() and comparable(name)]
    parser.add_argument("methods", nargs="*", default=known, help="default: all whose space has these images")
    parser.add_argument("--out", type=Path, default=Path("sweeps/methods"), help="folder of the sweeps")
    parser.add_argument("--samples", type=int, default=12, help="configurations searched, a method")
    parser.add_argument("--seeds", type=int, default=5, help="replicates, a method")
    arguments = parser.parse_args()
    chosen = list(dict.fromkeys([*arguments.methods, NO_TEACHER, COSTLY]))
    bench = Bench(arguments.out, arguments.samples, range(1, arguments.seeds + 1))

    trials = bench.search(chosen)
    rows = list(bench.replicate("replicates", trials).values())
    epochs = equal_epochs(trials[COSTLY], trials[NO_TEACHER])
    longer = trials[NO_TEACHER].model_copy(update={"epochs": epochs})
    row = bench.replicate("equal_compute", {NO_TEACHER: longer})[NO_TEACHER]
    rows.append(row._replace(label=f"{NO_TEACHER}, {epochs} epochs (the compute of {COSTLY})"))
    rows += bench.references(trials[COSTLY])

    (arguments.out / "table.json").write_text(json.dumps([row._asdict() for row in rows], indent=1))
    (arguments.out / "table.md").write_text(table(rows) + "\n")
    print(table(rows))


if __name__ == "__main__":
    main()
