"""What a trial costs beyond its training: raykd, the plain Tune + Train pattern, Tune without Train.

    python benchmarks/lanes.py            # about 6 minutes on two cores; prints one table and the ratios
    python benchmarks/lanes.py --quick    # fewer trials of the slow pattern

All sides run the same trials in one run on one machine, one trial at a time, each after its workers are warm:

- raykd            `raykd.runs.sweep.run`, one lane; the ledger, Optuna, the scheduler and the views included
- plain            a Tune function trainable that starts a `TorchTrainer` a trial, reporting every epoch
- Tune, reuse      a Tune class trainable without Train, `reuse_actors=True`: no process group, no isolation
- Tune, no reuse   the same with `reuse_actors=False`
- bare             the same trials one after another in one process, no engine at all

Seconds a trial beyond training = (wall time from the first trial's first step to the last one's end - the
bare process's wall time) / (trials - 1): what lies between two trials, and what reporting costs within.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(HERE), os.environ.get("PYTHONPATH")]))
os.environ["OMP_NUM_THREADS"] = "1"
sys.path.insert(0, str(HERE))

from raykd.lanes.cluster import LOCAL, connected, quiet  # noqa: E402

quiet()

from raykd.console.live import Console  # noqa: E402
from raykd.records.history import History  # noqa: E402
from raykd.spec.search import SearchSpec, build_sweep  # noqa: E402
from trainables.spec.trial import TrialSpec  # noqa: E402
from trainables.training.workspace import EpochReport, Workspace  # noqa: E402

Trials = list[TrialSpec]


def sweep_of(name: str, trials: int, epochs: int) -> SearchSpec:
    """MoCo on digits; every trial runs to its end, so that all sides do the same work."""
    return build_sweep(
        {
            "name": name,
            "method": "moco",
            "preset": "digits",
            "student": {"arch": "test_efficientnet", "options": {"channel_multiplier": 0.5}},
            "data": {"name": "digits", "image_size": 16},
            "epochs": epochs,
            "samples": trials,
            "axes": {"lr": {"log": [1e-3, 1e-2]}},
            "sampler": "random",
            "scheduler": {"name": "none"},
            "lanes": 1,
            "references": [],
        }
    )


def trials_of(spec: SearchSpec) -> Trials:
    from raykd.searching.proposer import Proposal, Proposer

    proposals = iter(Proposer(spec).propose, None)
    return [spec.trial(p.params, p.replicate) for p in proposals if isinstance(p, Proposal)]


# --- the sides ----------------------------------------------------------------------------------------


def bare(kind: str, spec: SearchSpec, folder: Path) -> float:
    """Wall seconds of the trials in one process that does nothing else."""
    code = "import lanes, sys; lanes.bare_process(*sys.argv[1:])"
    trials = json.dumps([t.model_dump(mode="json") for t in trials_of(spec)])
    done = subprocess.run(
        [sys.executable, "-c", code, kind, str(folder), trials], capture_output=True, text=True, check=True
    )
    return float(done.stdout.split()[-1])


def bare_process(kind: str, folder: str, trials: str) -> None:
    import bench_trainables
    import torch

    torch.set_num_threads(1)
    work = getattr(bench_trainables, kind)
    specs = [TrialSpec.model_validate(t) for t in json.loads(trials)]
    work(specs[0], lambda said: said.epoch < 2, _workspace(Path(folder) / "warm-up"))  # imports, data, caches
    began = time.perf_counter()
    for number, spec in enumerate(specs):
        work(spec, lambda said: True, _workspace(Path(folder) / str(number)))
    print(time.perf_counter() - began)


def lanes(kind: str, spec: SearchSpec, folder: Path) -> tuple[float, list[float]]:
    """Wall seconds from the first step to the last trial's end; seconds from each stop to the next step."""
    from raykd.records.ledger import Ledger
    from raykd.runs.sweep import Place, run
    from raykd.storage.open_storage import open_sweep

    actions = {"train": f"bench_trainables:{kind}", "prepare": "bench_trainables:prepare"}
    with Path(os.devnull).open("w") as hidden:
        run(spec, Place(open_sweep(folder / spec.name), actions=actions), Console(_rich(hidden)))
    history = History.of(Ledger.read(folder / spec.name))
    ended = list(history.trials.values())
    gaps = [
        after.reports[1]["began"] - before.ended
        for before, after in pairwise(ended)
        if before.ended is not None
    ]
    first = ended[0].reports[1]["began"]
    return (ended[-1].ended or first) - first, gaps


def plain(kind: str, spec: SearchSpec, folder: Path) -> tuple[float, list[float]]:
    """The documented pattern: Tune trials that each start a Ray Train run of one worker."""
    import ray.train.torch
    from ray import train, tune
    from ray.tune.integration.ray_train import TuneReportCallback

    def loop_per_worker(config: dict[str, Any]) -> None:
        import bench_trainables
        import torch

        torch.set_num_threads(1)

        def report(said: EpochReport) -> bool:
            ray.train.report({"epoch": said.epoch, "score": said.metrics.get("score", 0.0), "began": began})
            return True

        began = time.time()
        trial = TrialSpec.model_validate(config["trial"])
        getattr(bench_trainables, kind)(trial, report=report, workspace=_workspace(Path(config["folder"])))

    def trainable(config: dict[str, Any]) -> None:
        train.torch.TorchTrainer(
            loop_per_worker,
            train_loop_config=config["case"],
            scaling_config=train.ScalingConfig(num_workers=1, resources_per_worker={"CPU": 1}),
            run_config=train.RunConfig(
                name=tune.get_context().get_trial_id(),
                storage_path=str(folder),
                callbacks=[TuneReportCallback()],  # type: ignore[list-item]
            ),
        ).fit()

    return _tuned(tune.with_resources(trainable, {"cpu": 0.5}), spec, folder, reuse=False)


def tune_only(kind: str, spec: SearchSpec, folder: Path, reuse: bool) -> tuple[float, list[float]]:
    """A class trainable without Train, an epoch a step. Real training runs whole in its last step."""
    from ray import tune

    class Trial(tune.Trainable):
        def setup(self, config: dict[str, Any]) -> None:
            import torch

            torch.set_num_threads(1)
            self.reset_config(config)

        def reset_config(self, new_config: dict[str, Any]) -> bool:
            self.trial = TrialSpec.model_validate(new_config["case"]["trial"])
            self.folder = Path(new_config["case"]["folder"])
            self.epoch, self.began = 0, time.time()
            return True

        def step(self) -> dict[str, Any]:
            import bench_trainables

            self.epoch += 1
            done = self.epoch >= self.trial.epochs
            if kind == "real" and done:
                bench_trainables.real(self.trial, lambda said: True, _workspace(self.folder))
            return {"epoch": self.epoch, "began": self.began, "done": done}

        def save_checkpoint(self, checkpoint_dir: str) -> None:
            """Tune asks for one at every trial's end."""

    return _tuned(tune.with_resources(Trial, {"cpu": 1}), spec, folder, reuse)


def _tuned(trainable: Any, spec: SearchSpec, folder: Path, reuse: bool) -> tuple[float, list[float]]:
    from ray import tune

    stamps: list[tuple[str, float, float]] = []  # trial, first step, end; by the clock of this machine

    class Clock(tune.Callback):
        def on_trial_result(self, iteration: int, trials: Any, trial: Any, result: Any, **info: Any) -> None:
            self.__dict__.setdefault(trial.trial_id, result.get("began", time.time()))

        def on_trial_complete(self, iteration: int, trials: Any, trial: Any, **info: Any) -> None:
            stamps.append((trial.trial_id, self.__dict__[trial.trial_id], time.time()))

    cases = [
        {"trial": t.model_dump(mode="json"), "folder": str(folder / f"t{n}")}
        for n, t in enumerate(trials_of(spec))
    ]
    tune.Tuner(
        trainable,
        param_space={"case": tune.grid_search(cases)},
        tune_config=tune.TuneConfig(max_concurrent_trials=1, reuse_actors=reuse),
        run_config=tune.RunConfig(name="tune", storage_path=str(folder), verbose=0, callbacks=[Clock()]),
    ).fit()
    gaps = [after[1] - before[2] for before, after in pairwise(stamps)]
    return stamps[-1][2] - stamps[0][1], gaps


def _workspace(folder: Path) -> Workspace:
    from trainables.core.files import cache_folder

    return Workspace(folder, cache_folder(), folder / "teachers")


def _rich(file: Any) -> Any:
    from rich.console import Console as Rich

    return Rich(file=file)


# --- the table ----------------------------------------------------------------------------------------


def measure(kind: str, epochs: int, many: int, few: int, root: Path) -> None:
    """One table for one kind of trial."""
    rows: list[tuple[str, int, float, float]] = []
    walls = {}

    def side(
        name: str, trials: int, run: Callable[[SearchSpec, Path], tuple[float, list[float]]], ray: bool
    ) -> None:
        spec = sweep_of(f"{kind}-{name.replace(' ', '-').replace(',', '')}", trials, epochs)
        folder = root / spec.name
        folder.mkdir(parents=True)
        alone = bare(kind, spec, folder / "bare")
        if ray:
            with connected(LOCAL):
                wall, gaps = run(spec, folder)
        else:
            wall, gaps = run(spec, folder)
        walls[name] = (wall, alone)
        rows.append((name, trials, (wall - alone) / (trials - 1), statistics.median(gaps)))

    side("raykd", many, lambda s, f: lanes(kind, s, f), ray=False)
    side("plain", few, lambda s, f: plain(kind, s, f), ray=True)
    side("Tune, reuse", many, lambda s, f: tune_only(kind, s, f, reuse=True), ray=True)
    side("Tune, no reuse", few * 2, lambda s, f: tune_only(kind, s, f, reuse=False), ray=True)

    print(f"\n{kind} trials of {epochs} epochs")
    print(f"{'':16}{'trials':>8}{'s a trial beyond training':>28}{'s from stop to next step':>27}")
    for name, trials, beyond, gap in rows:
        print(f"{name:16}{trials:8d}{beyond:28.3f}{gap:27.3f}")
    own = rows[0][2]
    print(f"plain costs {rows[1][2] / max(own, 1e-3):.0f} times what raykd costs beyond training")
    wall, alone = walls["raykd"]
    if kind == "real":
        print(
            f"raykd's wall time is {wall / alone:.2f} times the bare one ({wall:.1f} s against {alone:.1f} s)"
        )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="fewer trials")
    quick = parser.parse_args().quick
    with tempfile.TemporaryDirectory(prefix="raykd-bench-") as root:
        measure("nothing", 5, 10 if quick else 40, 2 if quick else 4, Path(root))
        measure("real", 16, 4 if quick else 10, 2 if quick else 4, Path(root))


if __name__ == "__main__":
    main()
