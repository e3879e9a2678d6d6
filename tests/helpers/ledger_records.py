"""Records as the ledger returns them, a second apart, for tests of what is made from them."""

from __future__ import annotations

from itertools import count

clock = count(1000)


def record(kind: str, time: float | None = None, **fields) -> dict:
    return {"kind": kind, "time": float(next(clock)) if time is None else time, **fields}


def suggest(trial: str, number: int = 0, time: float | None = None, **config) -> dict:
    return record(
        "suggest",
        time,
        trial=trial,
        number=number,
        arm="a" * 8,
        replicate=0,
        params=config,
        config={"method": "retro", **config},
        origin="sampler",
        attrs={},
    )


def start(trial: str, attempt: int = 1, time: float | None = None) -> dict:
    return record("start", time, trial=trial, attempt=attempt, lane="lane-0")


def report(trial: str, epoch: int, score: float | None = None, time: float | None = None, **metrics) -> dict:
    found = {**metrics} if score is None else {"score": score, **metrics}
    return record("report", time, trial=trial, epoch=epoch, metrics=found)


def end(trial: str, status: str = "finished", reason: str | None = None, time: float | None = None) -> dict:
    return record("end", time, trial=trial, status=status, reason=reason)


def head(samples: int = 3) -> dict:
    empty = {"sampler": {}, "scheduler": {}, "versions": {}, "source": None}
    return record("sweep", spec={"name": "s", "samples": samples, "seeds": [0]}, spec_hash="0" * 8, **empty)


def evaluated(trial: str | None, task: str, score: float, row: str, seed: int | None = 0, **other) -> dict:
    """A record of the suite `quick`."""
    return record("evaluated", **{
        "who": "student", "network": trial or row, "trial": trial, "row": row, "seed": seed, "suite": "quick",
        "suite_hash": "00000000", "task": task, "key": f"key-{task}", "asked": {"task": "frozen"},
        "split": "digits", "suite_seed": 0, "place": ["linear", "near"].index(task),
        "metrics": {"score": score, "fitted": 10.0, "tested": 5.0}, "folder": f"evaluations/{trial}/{task}",
        "reason": None, **other,
    })  # fmt: skip
