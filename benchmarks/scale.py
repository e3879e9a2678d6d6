"""What the engine costs as a sweep grows: thousands of trials, 64 lanes, an object store.

    python benchmarks/scale.py                            # 5,000 trials, all parts, 15 minutes
    python benchmarks/scale.py --tree ../older            # the same of another checkout first, and the ratios
    python benchmarks/scale.py play resume --trials 1000

A sweep is played without training: the real proposer (TPE), decider (ASHA), ledger, recorder, tables,
TensorBoard files and dashboard study, and curves that follow from the trials' names. The parts:

- play      ms a trial by fifths of the sweep, one trial at a time; CPU time says more on a busy machine
- resume    seconds until a new driver could go on with that sweep; imports and Ray's start are left out
- report    seconds of `raykd report` on it
- median    ms a trial of the median rule by fifths of 1,000 trials, and ms a report
- s3        reports a second of 64 lanes that each wait for their answer, on moto's S3 server
- lanes     ms a trial of one real lane, Ray and Tune included: 100 trials, and 100 after those played
- memory    MiB a lane on the head (proportional set sizes), with 3 real lanes: the processes of which
            there is one a lane, but the worker

Each part of a side runs in a process of its own, the sides of a part one after the other.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import re
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from played import EPOCHS, LANES, NAME, Play, fifths, metrics_of, spec_of

HERE = Path(__file__).resolve().parent
LANES_MEASURED = 3  # by `memory`
ELSEWHERE = ("RayTrainWorker", "IDLE")  # Ray's processes that are no part of what a lane takes of the head
Found = dict[str, Any]


# --- the parts, each for one side -------------------------------------------------------------------------


def play(storage: Path, trials: int) -> Found:
    from raykd.records.ledger import Ledger
    from raykd.storage.open_storage import open_sweep

    place = open_sweep(storage / NAME)
    with Ledger.create(place) as ledger:
        played = Play(ledger, spec_of(trials), place)
        played.begin()
        times, used = [time.perf_counter()], [time.process_time()]

        def ended(_: int) -> None:
            times.append(time.perf_counter())
            used.append(time.process_time())

        reports = played.run(1, ended)
        close(played.record)
    wall, cpu = fifths(times), fifths(used)
    return {
        "ms a trial, by fifths": wall,
        "last / first": wall[-1] / wall[0],
        "CPU ms a trial, by fifths": cpu,
        "CPU last / first": cpu[-1] / cpu[0],
        "reports": reports,
    }


def close(recorder: Any) -> None:
    """End the threads of a recorder and of its views, in trees that have any."""
    for part in (*recorder.listeners, recorder):
        if hasattr(part, "close"):
            part.close()


def resume(storage: Path, trials: int) -> Found:
    import raykd.runs.sweep as driver
    from raykd.records import recorded_spec
    from raykd.records.history import History
    from raykd.records.ledger import Ledger
    from raykd.storage.open_storage import open_sweep

    place = open_sweep(storage / NAME)
    steps: dict[str, float] = {}

    @contextmanager
    def step(name: str) -> Iterator[None]:
        began = time.perf_counter()
        yield
        steps[name] = time.perf_counter() - began

    with step("imports"):
        spec_of(1).trial({}, 0)  # loads the methods, and torch with them
        for module in ("search.decisions", "search.proposer", "records.tensorboard", "records.dashboard"):
            importlib.import_module(f"raykd.{module}")
        importlib.import_module("ray.tune.schedulers")
    with step("read"):
        ledger = Ledger.open(place)
    with ledger:
        with step("history"):
            history = History.of(ledger.records)
        with step("check"):
            spec = recorded_spec.spec_of(history)
            recorded_spec.check_settings(spec, history)
            driver.refuse_other_inputs(spec, history)
        with step("replay"):
            ready = driver.refuse_other_samplers(spec, history)
        with step("views"):  # and the replay once more, in trees whose check does not hand it on
            played = Play(ledger, spec, place)
            played.begin(ready)
        close(played.record)
    imports = steps.pop("imports")
    return {"s": sum(steps.values()), **steps, "imports, not counted": imports}


def report(storage: Path, trials: int) -> Found:
    began = time.perf_counter()
    words = ["report", NAME, "--storage", str(storage), "--out", str(storage / "report.html")]
    subprocess.run([sys.executable, "-m", "raykd.cli", *words], check=True, capture_output=True)
    return {"s": time.perf_counter() - began}


def median(storage: Path, trials: int) -> Found:
    from raykd.searching.decisions import Decider

    decider = Decider(spec_of(trials, "median").scheduler, EPOCHS)
    times, reports = [time.perf_counter()], 0
    for number in range(1000):
        for epoch in range(1, 13):
            score = metrics_of(str(number), epoch)["score"]
            reports += 1
            if not decider.decide(str(number), number, epoch, score):
                break
        times.append(time.perf_counter())
    return {"ms a trial, by fifths": fifths(times), "ms a report": 1e3 * (times[-1] - times[0]) / reports}


def s3(storage: Path, trials: int) -> Found:
    sys.path.insert(0, str(HERE.parent / "tests" / "helpers"))
    code = "import s3, sys; server = s3.S3(); print(server.port, flush=True); sys.stdin.read(); server.stop()"
    env = {**os.environ, "PYTHONPATH": str(HERE.parent / "tests" / "helpers")}
    server = subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=env
    )
    from s3 import BUCKET, KEYS

    assert server.stdin is not None and server.stdout is not None
    os.environ.update(KEYS)
    port = int(server.stdout.readline())
    try:
        from raykd.records.ledger import Ledger
        from raykd.storage.open_storage import open_storage

        uri = f"s3://{BUCKET}/sweeps?scheme=http&endpoint_override=127.0.0.1:{port}"
        place = open_storage(uri).sweep(NAME)
        with Ledger.create(place) as ledger:
            played = Play(ledger, spec_of(trials, "none", LANES), place)
            played.begin()
            began = time.perf_counter()
            reports = played.run(LANES, lambda _: None, time.monotonic() + 30)
            seconds = time.perf_counter() - began
            close(played.record)
    finally:
        server.stdin.close()
        server.wait()
    return {"reports a second": reports / seconds}


def lanes(storage: Path, trials: int) -> Found:
    from raykd.records.ledger import Ledger

    found = {}
    for which, name, extend in (("first", "first", 0), ("beyond", NAME, 100)):
        place = storage / name
        if not extend:
            place = storage / "new" / NAME
        before = 0
        if extend:
            before = len(Ledger.read(place))
        run_really(place, spec_of(100), extend)
        records = Ledger.read(place)[before:]
        ends = [r["time"] for r in records if r["kind"] == "end"]
        found[f"ms a trial, {which}"] = 1e3 * (ends[-1] - ends[0]) / (len(ends) - 1)
        count = sum(r["kind"] == "report" for r in records)
        found[f"ms a report, {which}"] = 1e3 * (ends[-1] - ends[0]) / count
    return found


def run_really(folder: Path, spec: Any, extend: int) -> None:
    """Run a sweep with Ray, whose trials compute nothing; or `extend` the one that is there."""
    from rich.console import Console as Rich

    from raykd.console.live import Console
    from raykd.lanes.cluster import quiet
    from raykd.storage.open_storage import open_sweep

    quiet()
    from raykd.runs import sweep

    actions = {"train": "scale:trained", "prepare": "bench_trainables:prepare"}
    place = sweep.Place(open_sweep(folder), actions=actions)
    with Path(os.devnull).open("w") as hidden:
        console = Console(Rich(file=hidden))
        if extend:
            sweep.resume(place, console, extend=extend)
        else:
            sweep.run(spec, place, console)


def trained(trial: Any, report: Any, workspace: Any) -> None:
    """A trial that computes nothing."""
    from trainables.training.workspace import EpochReport

    pause = float(os.environ.get("SCALE_PAUSE", 0))
    name = trial.signature()
    for epoch in range(1, trial.epochs + 1):
        time.sleep(pause)
        if not report(EpochReport(epoch, metrics_of(name, epoch))):
            return


def memory(storage: Path, trials: int) -> Found:
    import psutil

    from raykd.spec.sections import WorkersSpec

    spec = spec_of(12, lanes=LANES_MEASURED).model_copy(update={"workers": WorkersSpec(cpus=0.5)})
    os.environ["SCALE_PAUSE"] = "0.3"
    most: dict[str, list[int]] = {}
    over = threading.Event()

    def watch() -> None:
        while not over.wait(1.0):
            sizes: dict[str, list[int]] = {}
            for process in psutil.Process().children(recursive=True):
                try:
                    title = process.cmdline()[:1]
                    if title and (kind := re.match(r"ray::(\w+)", title[0])):
                        sizes.setdefault(kind[1], []).append(process.memory_full_info().pss)
                except psutil.Error:
                    continue
            if len(sizes.get("TrialProxy", ())) >= LANES_MEASURED and sum(map(sum, sizes.values())) > sum(
                map(sum, most.values())
            ):
                most.clear()
                most.update(sizes)

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    run_really(storage / "memory" / NAME, spec, 0)
    over.set()
    thread.join()
    each = {kind: sum(sizes) / len(sizes) / 2**20 for kind, sizes in most.items()}
    own = [kind for kind in each if len(most[kind]) >= LANES_MEASURED and kind not in ELSEWHERE]
    return {"MiB a lane on a head that is alone": sum(each[kind] for kind in own), **each}


PARTS: dict[str, Callable[[Path, int], Found]] = {
    part.__name__: part for part in (play, resume, report, median, s3, lanes, memory)
}


# --- both sides -------------------------------------------------------------------------------------------


def side(tree: Path, part: str, storage: Path, trials: int) -> Found:
    """What a part measures of a checkout, in a process of its own."""
    env = {**os.environ, "OMP_NUM_THREADS": "1", "RAYKD_CACHE": str(storage / ".cache")}
    env["PYTHONPATH"] = os.pathsep.join([str(tree), str(HERE)])
    words = [sys.executable, __file__, part, "--trials", str(trials), "--in", str(storage)]
    done = subprocess.run(words, env=env, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{part} of {tree} failed:\n{done.stderr[-5000:]}")
    found: Found = json.loads(done.stdout.splitlines()[-1])
    return found


def shown(value: Any) -> str:
    return " ".join(f"{v:.4g}" for v in (value if isinstance(value, list) else [value]))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("parts", nargs="*", default=list(PARTS), help=", ".join(PARTS))
    parser.add_argument("--trials", type=int, default=5000)
    parser.add_argument("--tree", type=Path, help="another checkout, to compare with")
    parser.add_argument("--in", type=Path, dest="storage", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.storage is not None:
        print(json.dumps(PARTS[asked.parts[0]](asked.storage, asked.trials)))
        return
    trees = {"before": asked.tree, "now": HERE.parent}
    with tempfile.TemporaryDirectory(prefix="raykd-scale-") as root:
        storages = {name: Path(root) / name for name, tree in trees.items() if tree is not None}
        for storage in storages.values():
            storage.mkdir()
        for part in asked.parts:
            found = {
                name: side(trees[name].resolve(), part, storages[name], asked.trials) for name in storages
            }
            print(f"\n{part}, {asked.trials} trials")
            for what in found["now"]:
                values = {name: one[what] for name, one in found.items() if what in one}
                ratio = ""
                if len(values) == 2 and not isinstance(values["now"], list) and values["now"]:
                    ratio = f"   before / now {values['before'] / values['now']:.2f}"
                said = "   ".join(f"{name} {shown(value)}" for name, value in values.items())
                print(f"  {what:28}{said}{ratio}", flush=True)


if __name__ == "__main__":
    main()
