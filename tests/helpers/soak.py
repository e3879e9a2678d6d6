"""Small sweeps for as long as is wanted, with faults at random moments; invariants are checked after each.

    python tests/helpers/soak.py --seconds 3600 [--seed 7]

Prints a line a sweep and at the end how many faults of each kind were survived. Exit code 1 when something
did not hold; the sweep's folder and the seed are then named.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from invariants import all_gone, check, processes
from kills import Sweep

from raykd.records.ledger import LEDGER

BASE = """\
  method: disco
  preset: digits
  student: {{arch: test_efficientnet, options: {{channel_multiplier: 0.5}}}}
  teacher: {{arch: test_resnet, train: {{method: moco, preset: digits, epochs: 2}}}}
  data: {{name: digits, image_size: 16}}
  epochs: {epochs}
"""
ENGINE = """\
attempts: 50
workers: {{count: {count}, cpus: {cpus}, hang_after: 25s}}
"""
SWEEP = """\
name: {name}
samples: {samples}
seeds: {seeds}
scheduler: {scheduler}
sampler: {sampler}
axes:
  lr: [1e-3, 3e-3, 1e20]
  hidden: [64, 128, 4398046511104]
  weight_decay: {{log: [1e-6, 1e-3]}}
points:
  - {{lr: 1e-3, hidden: 64, weight_decay: 1e-4}}  # a sweep without a success exits with 1
  - {{lr: 1e20, hidden: 64, weight_decay: 1e-4}}
  - {{lr: 1e-3, hidden: 4398046511104, weight_decay: 1e-4}}
"""
STUDY = """\
name: {name}
design: one_at_a_time
factors: {{hidden: [64, 128]}}
replicates: 3
base:
"""
LONGEST_S = 1500  # a sweep that takes longer has stopped getting on
Fault = Callable[[Sweep, random.Random], bool]


def kill(kind: str) -> Fault:
    def strike(sweep: Sweep, dice: random.Random) -> bool:
        found = sweep.parts(kind)
        if found:
            dice.choice(found).kill()
        return bool(found)

    return strike


def kill_driver(sweep: Sweep, dice: random.Random) -> bool:
    sweep.kill()
    return True


def tear_ledger(sweep: Sweep, dice: random.Random) -> bool:
    """The driver dies in the middle of a write."""
    sweep.kill()
    if (sweep.folder / LEDGER).exists():
        with (sweep.folder / LEDGER).open("ab") as ledger:
            ledger.write(b'00000000 {"kind":"report","time":1.0,"tri'[: dice.randint(1, 40)])
    return True


def stop_worker(sweep: Sweep, dice: random.Random) -> bool:
    """A worker stops answering."""
    found = sweep.parts("worker")
    if found:
        dice.choice(found).suspend()
    return bool(found)


FAULTS: dict[str, Fault] = {
    "driver killed": kill_driver,
    "driver killed in a write": tear_ledger,
    "worker killed": kill("worker"),
    "worker stopped answering": stop_worker,
    "Tune actor killed": kill("proxy"),
    "Train controller killed": kill("controller"),
    "broker killed": kill("broker"),
    "raylet killed": kill("raylet"),
}


def text(name: str, dice: random.Random) -> tuple[str, str]:
    """A random sweep or study, and the verb that runs it."""
    count = dice.choice([1, 1, 2])
    engine = ENGINE.format(count=count, cpus=1 / count)
    base = BASE.format(epochs=dice.choice([4, 8]))
    if dice.random() < 0.25:
        return STUDY.format(name=name) + base + engine, "ablate"
    sweep = SWEEP.format(
        name=name,
        samples=dice.randint(4, 7),
        seeds=dice.choice([[0], [0], [0, 1]]),
        scheduler=dice.choice(
            [
                "{name: asha, grace: 1, factor: 2}",
                "{name: hyperband, grace: 1, factor: 2}",
                "{name: median, grace: 1, min_samples: 2}",
                "none",
            ]
        ),
        sampler=dice.choice(["tpe", "random"]),
    )
    flat = "\n".join(line[2:] for line in base.splitlines())
    return f"{sweep}{flat}\n{engine}", "run"


def soak(sweep: Sweep, dice: random.Random, most: int) -> Counter[str]:
    """Run it to its end under at most `most` faults; which they were."""
    struck: Counter[str] = Counter()
    deadline = time.monotonic() + LONGEST_S
    while not (sweep.driver is not None and sweep.driver.returncode == 0 and sweep.history.done):
        assert time.monotonic() < deadline, f"not done after {LONGEST_S} s"
        assert sweep.driver is None or sweep.driver.returncode in (0, 1, -9), (
            f"exit {sweep.driver.returncode}"
        )
        for process in processes(sweep.mark):  # a stopped process does not notice that its driver has died
            process.kill()
        all_gone(sweep.mark)
        sweep.go_on()
        strike_at = time.monotonic() + dice.uniform(0, 25)
        while sweep.alive():
            assert time.monotonic() < deadline, f"not done after {LONGEST_S} s"
            if sum(struck.values()) < most and time.monotonic() >= strike_at:
                name = dice.choice(list(FAULTS))
                struck[name] += FAULTS[name](sweep, dice)
                strike_at = time.monotonic() + dice.uniform(2, 25)
            time.sleep(0.02)
    return +struck


def verify(sweep: Sweep) -> tuple[int, int]:
    """Check everything; how many trials there were, and how many of them were bound to fail."""
    history = check(sweep.folder)
    doomed = 0
    for trial in history.trials.values():
        bad = trial.config["lr"] > 1e3 or trial.config["hidden"] > 1e9
        doomed += bad
        assert bad == (trial.status == "failed"), f"{trial.trial} {trial.status}: {trial.reason}"
        if bad:
            assert "not finite" in str(trial.reason) or "out of memory" in str(trial.reason), trial.reason
    all_gone(sweep.mark)
    return len(history.trials), doomed


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--seconds", type=float, default=3600)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--faults", type=int, default=6, help="at most so many a sweep")
    arguments = parser.parse_args()
    dice = random.Random(arguments.seed)
    storage = Path(tempfile.mkdtemp(prefix="soak"))
    os.environ["RAYKD_CACHE"] = str(storage / ".cache")
    began, total, trials, sweeps = time.monotonic(), Counter[str](), 0, 0
    print(f"soak for {arguments.seconds:.0f} s, seed {arguments.seed}, in {storage}", flush=True)
    while time.monotonic() - began < arguments.seconds:
        name = f"soak-{sweeps}"
        sweep = Sweep(storage, name, *text(name, dice))
        try:
            struck = soak(sweep, dice, arguments.faults)
            found, doomed = verify(sweep)
        except BaseException as error:
            if sweep.alive():
                sweep.kill()
            for process in processes(sweep.mark):
                process.kill()
            print(f"{name} in {storage}, seed {arguments.seed}: {error}\n{sweep.text()[-3000:]}", flush=True)
            raise
        total += struck
        total["numbers gone bad, or out of memory"] += doomed
        trials, sweeps = trials + found, sweeps + 1
        said = ", ".join(f"{count} {what}" for what, count in struck.items()) or "no fault"
        print(f"{time.monotonic() - began:6.0f} s  {name}: {found} trials whole after {said}", flush=True)
        shutil.rmtree(sweep.folder)
    print(f"\nsurvived {sum(total.values())} faults in {sweeps} sweeps of {trials} trials:")
    for what, count in sorted(total.items()):
        print(f"  {count:5d}  {what}")
    shutil.rmtree(storage)
    return 0


if __name__ == "__main__":
    sys.exit(main())
