"""What sharing the teacher's answers saves: one sweep with and without it, and against ready random answers.

    python benchmarks/targets.py                         # about 6 minutes on two cores
    python benchmarks/targets.py --teacher resnet152

A sweep of 8 trials on 2 lanes (learning rates of RETRO or of another `--method`, one seed),
MobileNet-v3-large at 64 px, runs three times through the engine on this machine:

- without          `targets: off`: every trial asks the teacher about every view
- shared           `targets: auto`, with an empty cache
- ready            `targets: off`, and the teacher's answers are random numbers that are there: the limit

Wall time is that from the first trial's first report back to its start, until the last trial's end. A wave is
two trials, one on each lane; from the second on everything that a trial asks has been asked before.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

HERE = Path(__file__).resolve().parent
os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(HERE), os.environ.get("PYTHONPATH")]))
os.environ["OMP_NUM_THREADS"] = "1"

from raykd.lanes.cluster import quiet  # noqa: E402

quiet()

from raykd.console.live import Console  # noqa: E402
from raykd.records.history import History  # noqa: E402
from raykd.spec.search import SearchSpec, build_sweep  # noqa: E402
from trainables.data.sources.digits import PER_CLASS  # noqa: E402
from trainables.methods import load_method  # noqa: E402

TRIALS, LANES, BATCH = 8, 2, 64


class Side(NamedTuple):
    """One sweep."""

    wall_s: float
    trial_s: list[float]  # in the order of their starts
    passes: int  # through the teacher
    views: int  # distinct ones that it was asked about
    scores: list[float]  # of each trial's last epoch


def teacher_file(arch: str, folder: Path) -> Path:
    """An untrained network with a projection head, as raykd's own checkpoint: the time does not change."""
    from trainables.planning.check import TrialChecker
    from trainables.planning.compute import bare_method
    from trainables.training.resolve import resolve
    from trainables.training.teacher_file import save_teacher

    raw = {"method": "moco", "preset": "digits", "student": {"arch": arch}, "epochs": 1}
    path = folder / f"{arch}.safetensors"
    save_teacher(bare_method(resolve(raw), TrialChecker().context), path)
    return path


def sweep_of(name: str, options: argparse.Namespace, teacher: Path, targets: str) -> SearchSpec:
    """Trials that differ in their learning rate and all run to their end."""
    queue = {"queue_size": 256} if "queue_size" in load_method(options.method).Config.model_fields else {}
    return build_sweep(
        {
            "name": name,
            "method": options.method,
            "student": {"arch": options.student},
            "teacher": {"arch": options.teacher, "checkpoint": str(teacher)},
            "data": {
                "name": "digits",
                "image_size": 64,
                "margin": 8,
                "validation": 1 - options.images / sum(PER_CLASS),
            },
            "views": {"recipe": "moco_v2"},
            "optim": {"batch_size": BATCH},
            "fixed": queue,
            "probe": {"record": [], "every": options.epochs},
            "epochs": options.epochs,
            "samples": TRIALS,
            "axes": {"lr": {"log": [1e-4, 1e-3]}},
            "sampler": "random",
            "scheduler": "none",
            "lanes": LANES,
            "workers": {"cpus": 1, "gpus": 0},
            "references": [],
            "targets": targets,
        }
    )


def measured(spec: SearchSpec, action: str, folder: Path) -> Side:
    """Run a sweep with a cache of its own."""
    from rich.console import Console as Rich

    from raykd.records.ledger import Ledger
    from raykd.runs.sweep import Place, run
    from raykd.storage.open_storage import open_sweep

    os.environ["RAYKD_CACHE"] = str(folder / f"cache-{spec.name}")
    actions = {"train": f"bench_trainables:{action}", "prepare": "bench_trainables:prepare"}
    with Path(os.devnull).open("w") as hidden:
        run(spec, Place(open_sweep(folder / spec.name), actions=actions), Console(Rich(file=hidden)))
    trials = list(History.of(Ledger.read(folder / spec.name)).trials.values())
    began = [trial.reports[1]["began"] for trial in trials]
    ended = [trial.ended or 0.0 for trial in trials]
    order = sorted(range(len(trials)), key=began.__getitem__)
    logs = folder.glob(f"{spec.name}/**/passes.txt")
    passes = [line for log in logs for line in log.read_text().splitlines()]
    return Side(
        max(ended) - min(began),
        [ended[i] - began[i] for i in order],
        len(passes),
        len(set(passes)),
        [trials[i].reports[spec.epochs]["score"] for i in order],
    )


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="What sharing the teacher's answers saves.")
    parser.add_argument("--teacher", default="resnet50")
    parser.add_argument("--student", default="mobilenetv3_large_100")
    parser.add_argument("--method", default="retro")
    parser.add_argument("--images", type=int, default=320, help="trained on (default: 320)")
    parser.add_argument("--epochs", type=int, default=2)
    options = parser.parse_args(arguments)
    kinds: dict[str, tuple[str, str]] = {
        "without": ("off", "counted"),
        "shared": ("auto", "counted"),
        "ready": ("off", "random_answers"),
    }
    sides: dict[str, Side] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        teacher = teacher_file(options.teacher, folder)
        for side, (targets, action) in kinds.items():
            print(f"{side} ...", file=sys.stderr, flush=True)
            sides[side] = measured(sweep_of(side, options, teacher, targets), action, folder)
    show(sides, options)
    return 0


def show(sides: dict[str, Side], options: argparse.Namespace) -> None:
    """Print the table and the ratios."""
    print(f"{options.method}, {options.teacher} -> {options.student}, {TRIALS} trials on {LANES} lanes\n")
    print("| | s, the sweep | s, a trial of the first wave | s, a later trial | passes | a distinct view |")
    print("|---|---|---|---|---|---|")
    later: dict[str, float] = {}
    for name, side in sides.items():
        first, later[name] = statistics.mean(side.trial_s[:LANES]), statistics.mean(side.trial_s[LANES:])
        share: Any = f"{side.passes / side.views:.2f}" if side.views else "-"
        row = [name, f"{side.wall_s:.1f}", f"{first:.1f}", f"{later[name]:.1f}", side.passes, share]
        print("| " + " | ".join(map(str, row)) + " |")
    shared, without = sides["shared"], sides["without"]
    same = "the same" if shared.scores == without.scores else "OTHER"
    print(f"\nthe whole sweep: {without.wall_s / shared.wall_s:.2f} times as fast with shared answers")
    print(f"a later trial takes {later['shared'] / later['ready']:.2f} times the limit")
    print(f"scores with and without: {same}")


if __name__ == "__main__":
    sys.exit(main())
